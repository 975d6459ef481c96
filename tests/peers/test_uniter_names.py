"""Every tensor of UNITER has its published names and shapes, and finds its way back."""

import json
from pathlib import Path

import pytest
import torch

import toy_uniter
from albef.cli.info import model_facts
from albef.config import SIZES
from albef.peers import uniter_names
from albef.peers.uniter import PRETRAINING, UNITER

NAMES = json.loads((Path(__file__).parent.parent / "golden" / "uniter-names.json").read_text())
MODELS = {
    "pretraining": (PRETRAINING, 112_938_887),
    "retrieval": (("itm", "rank"), 109_901_059),
    "vqa": (("answers",), 115_892_281),
    "ve": (("entailment",), 111_087_619),
    "nlvr2_triplet": (("triplet",), 109_901_058),
    "nlvr2_paired": (("paired",), 109_902_594),
    "nlvr2_paired_attn": (("paired_attention",), 115_808_515),
}


@pytest.mark.parametrize("published", MODELS)
def test_names_and_shapes_are_the_published_ones(published: str) -> None:
    heads, parameters = MODELS[published]
    with torch.device("meta"):
        model = UNITER(SIZES["uniter-base"], heads)
    state = uniter_names.to_published(model.state_dict())
    assert {name: list(tensor.shape) for name, tensor in state.items()} == NAMES[published]
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize(
    ("size", "parameters", "keys"), [("uniter-base", 112_938_887, 230), ("uniter-large", 340_524_935, 422)]
)
def test_info_tells_the_published_sizes(size: str, parameters: int, keys: int) -> None:
    facts = model_facts(size)
    assert (facts["trainable_parameters"], facts["state_dict_keys"]) == (parameters, keys)


@pytest.mark.parametrize("heads", [heads for heads, _ in MODELS.values()], ids=MODELS)
def test_there_and_back_nothing_changes(heads: tuple[str, ...]) -> None:
    state = toy_uniter.model(heads).state_dict()
    published = uniter_names.to_published(state)
    # A file may hold tied tensors once.
    for alias in uniter_names.UNITER.tied:
        published.pop(alias, None)
    back = uniter_names.from_published(published, state)
    assert list(back) == list(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_the_classes_of_entailment_change_places() -> None:
    """Published: contradiction, entailment, neutral. Here: contradiction, neutral, entailment."""
    state = toy_uniter.model(("entailment",)).state_dict()
    bias = uniter_names.to_published(state)["vqa_output.3.bias"]
    assert torch.equal(bias, state["entailment_head.out.bias"][[0, 2, 1]])
