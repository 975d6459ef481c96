"""A part of a batch may have no masked words, no hidden regions and no answers."""

import dataclasses
from types import ModuleType

import pytest
import torch

import toy_lxmert
import toy_oscar
import toy_uniter
from albef.config import Config
from albef.data.records import Batch
from albef.model import kernels
from albef.peers.lxmert_task import LxmertPretrain
from albef.peers.oscar_task import NOT_PREDICTED, OscarPretrain
from albef.peers.region_tasks import RegionTask
from albef.peers.uniter_task import MIX, UniterPretrain, sample_objective
from albef.tasks.base import Stage, joined


def without_predictions(given: Batch) -> Batch:
    """The batch with nothing masked, nothing hidden and no answers."""
    emptied = {
        name: torch.full_like(tensor, value)
        for name, value in (("hidden_regions", 0), ("listed_answer", -1), ("tag_labels", NOT_PREDICTED))
        if (tensor := getattr(given, name)) is not None
    }
    return dataclasses.replace(
        given, mlm_positions=given.mlm_positions[:0], mlm_labels=given.mlm_labels[:0], **emptied
    )


@pytest.mark.parametrize("linear", ["torch", "onednn"])
@pytest.mark.parametrize(
    ("kind", "toy", "step"),
    [
        *(
            (UniterPretrain, toy_uniter, next(n for n in range(99) if sample_objective(42, n, True) == name))
            for name in MIX
        ),
        (OscarPretrain, toy_oscar, 0),
        (LxmertPretrain, toy_lxmert, 0),
    ],
)
def test_nothing_to_predict_gives_no_loss_and_a_finite_gradient(
    kind: type[RegionTask], toy: ModuleType, step: int, linear: str
) -> None:
    given, task, stage = (
        without_predictions(toy.batch()),
        kind(Config(model=toy.CONFIG)),
        Stage(0.0, step=step),
    )
    task.train()
    before = kernels.used()
    kernels.use(kernels.Kernels(linear=linear))
    try:
        (targets,) = joined([task.prepare(given, stage)], True)
        output = task(given, targets, stage)
        torch.stack(list(output.losses.values())).sum().backward()
    finally:
        kernels.use(before)
    assert all(torch.isfinite(value) for value in (*output.losses.values(), *output.measures.values()))
    assert {"mlm", "features", "answer"}.isdisjoint(
        name for name, loss in output.losses.items() if loss.item()
    )
    for parameter in task.parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all()
