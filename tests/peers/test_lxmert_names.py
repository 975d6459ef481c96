"""Every tensor of LXMERT has its published names and shapes, and finds its way back."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import toy_lxmert
from albef.config import SIZES
from albef.peers import lxmert_names
from albef.peers.lxmert import LXMERT

NAMES = json.loads((Path(__file__).parent.parent / "golden" / "lxmert-names.json").read_text())
PRETRAINED = ("itm", "mlm", "regions", "answers")
SIZE = SIZES["lxmert-base"]


@pytest.mark.parametrize(
    ("published", "heads", "num_answers", "naming"),
    [
        ("lxmert/pretraining", PRETRAINED, 9_500, None),
        ("lxmert/vqa", ("answers",), 3_129, None),
        ("lxmert/gqa", ("answers",), 1_842, None),
        ("lxmert/nlvr2", ("nlvr",), 3_129, None),
        ("hf/lxmert-pretraining", PRETRAINED, 9_500, lxmert_names.HUGGING_FACE),
        ("hf/lxmert-question-answering", ("answers",), 3_129, lxmert_names.HUGGING_FACE),
    ],
)
def test_names_and_shapes_are_the_published_ones(
    published: str, heads: tuple[str, ...], num_answers: int, naming: lxmert_names.Naming | None
) -> None:
    with torch.device("meta"):
        model = LXMERT(dataclasses.replace(SIZE, num_answers=num_answers), heads)
    state = lxmert_names.to_published(model.state_dict(), naming)
    assert {name: list(tensor.shape) for name, tensor in state.items()} == NAMES[published]


@pytest.mark.parametrize("heads", [PRETRAINED, ("answers",), ("nlvr",)])
@pytest.mark.parametrize("naming", [None, lxmert_names.HUGGING_FACE])
def test_there_and_back_nothing_changes(heads: tuple[str, ...], naming: lxmert_names.Naming | None) -> None:
    state = toy_lxmert.model(*heads).state_dict()
    published = lxmert_names.to_published(state, naming)
    back = lxmert_names.from_published(published, state)
    assert list(back) == list(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize(
    ("heads", "before", "after"),
    [
        (PRETRAINED, "", "module."),
        (("nlvr",), "lxrt_encoder.model.", "lxrt_encoder.model.module."),
    ],
)
def test_files_of_several_gpus_are_read_too(heads: tuple[str, ...], before: str, after: str) -> None:
    state = toy_lxmert.model(*heads).state_dict()
    published = lxmert_names.to_published(state)
    marked = {
        after + name.removeprefix(before) if name.startswith(before) else name: tensor
        for name, tensor in published.items()
    }
    assert marked.keys() != published.keys()
    back = lxmert_names.from_published(marked, state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())
