"""Every figure and every verb is computed in the engine's precision: under its bf16, and in that of its weights."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import toy
from albef.config import DataConfig, TaskName
from albef.engine import Engine
from albef.evaluation.vqa import Asking
from albef.run import Asked, evaluate_on

HEADS: dict[TaskName, tuple[str, ...]] = {
    "retrieval": ("contrast", "itm"),
    "vqa": ("answer",),
    "entailment": ("entailment",),
    "nlvr": ("nlvr",),
    "grounding": ("contrast", "itm"),
}
IMAGE = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
VERBS: dict[str, tuple[tuple[str, ...], Callable[[Engine], object]]] = {
    "rank": (("contrast", "itm"), lambda engine: engine.rank("a fox", [IMAGE])),
    "rank_texts": (("contrast", "itm"), lambda engine: engine.rank_texts(IMAGE, ["a fox"])),
    "match": (("contrast", "itm"), lambda engine: engine.match([IMAGE], ["a fox"])),
    "ground": (("contrast", "itm"), lambda engine: engine.ground(IMAGE, "a fox")),
    "ground by contrast": (("contrast", "itm"), lambda engine: engine.ground(IMAGE, "a fox", "itc")),
    "answer": (("answer",), lambda engine: engine.answer(IMAGE, "a fox", ["yes", "no"])),
    "answer freely": (("answer",), lambda engine: engine.answer(IMAGE, "a fox", [])),
    "entails": (("entailment",), lambda engine: engine.entails(IMAGE, "a fox")),
    "judge": (("nlvr",), lambda engine: engine.judge(IMAGE, IMAGE, "a fox")),
    "fill_mask": (("contrast", "itm", "mlm"), lambda engine: engine.fill_mask("a [MASK]", IMAGE)),
}


def measured(engine: Engine, task: TaskName) -> dict[str, float]:
    source = "pictograms" if task == "retrieval" else f"pictograms:{task}"
    asked = Asked(task, Asking(["yes", "no", "one"], k=2))
    return evaluate_on(engine, DataConfig(source=source, count=8), ["test"], 0, asked)


def autocast(engine: Engine) -> list[bool]:
    """Gets, for every layer that the model computes from now on, whether that was under autocast."""
    found: list[bool] = []
    for module in engine.model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.register_forward_pre_hook(lambda *_: found.append(torch.is_autocast_enabled("cpu")))
    return found


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("task", HEADS)
def test_every_figure_is_computed_in_bf16_if_that_is_asked_for(task: TaskName, bf16: bool) -> None:
    engine = toy.engine(*HEADS[task])
    engine.bf16 = bf16
    found = autocast(engine)
    measured(engine, task)
    assert set(found) == {bf16}


@pytest.mark.parametrize("bf16", [True, False])
@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_is_computed_in_bf16_if_that_is_asked_for(verb: str, bf16: bool) -> None:
    heads, ask = VERBS[verb]
    engine = toy.engine(*heads)
    engine.bf16 = bf16
    found = autocast(engine)
    ask(engine)
    assert set(found) == {bf16}


@pytest.mark.parametrize("task", HEADS)
def test_figures_are_computed_in_the_precision_of_the_weights(task: TaskName) -> None:
    engine = toy.engine(*HEADS[task])
    expected = measured(engine, task)
    engine.model.double()
    assert measured(engine, task) == pytest.approx(expected, abs=0.3)  # close scores may change places
    engine.model.bfloat16()
    assert measured(engine, task).keys() == expected.keys()
