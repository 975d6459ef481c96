"""OSCAR's golden files notice wrong models."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

sys.path.insert(0, str(Path(__file__).parent))
import replay
import replay_oscar

from albef.peers.oscar import OSCAR

GOLDEN = Path(__file__).parent.parent / "golden"


def coarse_norms(model: OSCAR) -> None:
    for part in model.modules():
        if isinstance(part, nn.LayerNorm):
            part.eps = 1e-5


def tags_of_type_0(model: OSCAR) -> None:
    types = model.text_encoder.types.weight
    types.data[1] = types.data[0]


def tags_from_position_0(model: OSCAR) -> None:
    embed = model.embed_tags
    model.embed_tags = lambda tags, mask: embed(tags, mask[:, :0])  # type: ignore[method-assign]


def no_boxes(model: OSCAR) -> None:
    model.region_projection.weight.data[:, -6:] = 0


def no_norm_of_regions(model: OSCAR) -> None:
    model.region_norm = nn.Identity()


@pytest.mark.parametrize(
    ("spoil", "file"),
    [
        (coarse_norms, "oscar_pretrain"),
        (tags_of_type_0, "oscar_pretrain"),
        (tags_from_position_0, "oscar_vqa"),
        (no_boxes, "oscar_nlvr2"),
        (no_norm_of_regions, "oscar_pretrain_plus"),
    ],
)
def test_a_wrong_model_is_noticed(
    spoil: Callable[[OSCAR], None], file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = replay_oscar.load_model

    def spoilt(*given: object) -> OSCAR:
        model = load(*given)  # type: ignore[arg-type]
        spoil(model)
        return model

    monkeypatch.setattr(replay_oscar, "load_model", spoilt)
    assert replay.main([str(GOLDEN / f"{file}.safetensors")]) == 1


def test_another_activation_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "gelu", partial(torch.nn.functional.gelu, approximate="tanh"))
    assert replay.main([str(GOLDEN / "oscar_retrieval.safetensors")]) == 1
