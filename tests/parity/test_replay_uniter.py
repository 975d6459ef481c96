"""UNITER's golden files notice every model that is only nearly right."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parent))
import replay
import replay_uniter

from albef.peers import uniter
from albef.peers.uniter import UNITER
from golden import Golden

GOLDEN = Path(__file__).parent.parent / "golden"
exact_gelu, load_model = F.gelu, replay_uniter.load_model


def eps_of_other_models(model: UNITER) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5


def no_type_of_regions(model: UNITER) -> None:
    model.text_encoder.types.weight.data[1:] = 0


def types_exchanged(model: UNITER) -> None:
    model.text_encoder.types.weight.data[1:] = model.text_encoder.types.weight.data[1:].flip(0)


def no_box(model: UNITER) -> None:
    model.region_embedding.boxes_norm.weight.data.zero_()


def hidden_row_0(model: UNITER) -> None:
    model.region_embedding.hidden.weight.data[:] = model.region_embedding.hidden.weight.data.flip(0)


def attention_exchanged(model: UNITER) -> None:
    assert model.pair_attention is not None
    model.pair_attention.first, model.pair_attention.second = (
        model.pair_attention.second,
        model.pair_attention.first,
    )


@pytest.mark.parametrize(
    ("case", "wrong"),
    [
        ("vqa", eps_of_other_models),
        ("mlm", no_type_of_regions),
        ("ve", no_box),
        ("mrfr", hidden_row_0),
        ("nlvr2_triplet", types_exchanged),
        ("nlvr2_paired", types_exchanged),
        ("nlvr2_paired_attn", attention_exchanged),
    ],
)
def test_a_wrong_model_is_noticed(
    case: str, wrong: Callable[[UNITER], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrongly(golden: Golden) -> UNITER:
        model = load_model(golden)
        wrong(model)
        return model

    monkeypatch.setattr(replay_uniter, "load_model", wrongly)
    assert replay.main([str(GOLDEN / f"uniter_{case}.safetensors")]) == 1


def as_before(value: torch.Tensor) -> torch.Tensor:
    return value


@pytest.mark.parametrize(
    ("case", "place", "name", "other"),
    [
        ("mlm", F, "gelu", lambda states: exact_gelu(states, approximate="tanh")),
        ("retrieval", torch, "tanh", as_before),
        (
            "mrckl",
            replay_uniter.region_objectives,
            "region_class_divergence",
            lambda logits, soft, count: F.kl_div(logits.log_softmax(1), soft, reduction="batchmean"),
        ),
        ("mrc", replay_uniter.region_objectives, "likeliest_objects", lambda soft: soft.argmax(1)),
        (
            "itm_wra",
            replay_uniter.region_objectives,
            "alignment_loss",
            lambda distance, matched, count: distance[matched == 1].sum() / count,
        ),
        ("vqa", uniter, "seven_numbers", lambda boxes: boxes.roll(1, -1)),
        ("ve", replay_uniter, "PUBLISHED_ENTAILMENT", [0, 1, 2]),
    ],
)
def test_a_wrong_function_is_noticed(
    case: str, place: object, name: str, other: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, name, other)
    assert replay.main([str(GOLDEN / f"uniter_{case}.safetensors")]) == 1
