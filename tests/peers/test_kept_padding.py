"""Where padding passes through the layers, as on a GPU, every task learns the same as where it is removed."""

import pytest
import torch
from torch import Tensor

from albef.config import Config
from albef.peers.region_tasks import RegionTask
from albef.peers.uniter_task import MIX, UniterPretrain, sample_objective
from albef.tasks.base import Stage, joined
from toy_batches import in_double
from toy_region_tasks import TASKS

CASES = [
    *((kind, 0) for kind in TASKS if kind is not UniterPretrain),
    *(
        (UniterPretrain, next(step for step in range(99) if sample_objective(42, step, True) == objective))
        for objective in MIX
    ),
]


def learned(kind: type[RegionTask], step: int) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of a step in double precision, and its gradients."""
    toy = TASKS[kind]
    batch, stage = in_double(toy.batch()), Stage(0.0, step=step)
    torch.manual_seed(0)
    task = kind(Config(model=toy.CONFIG)).double()
    (targets,) = joined([task.prepare(batch, stage)], True)
    loss = torch.stack(list(task(batch, targets, stage).losses.values())).sum()
    loss.backward()
    return loss, {name: p.grad for name, p in task.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("kind", "step"), CASES)
def test_padding_changes_neither_loss_nor_gradient(
    kind: type[RegionTask], step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = learned(kind, step)
    monkeypatch.setattr("albef.model.layers.packs", lambda device: False)
    torch.testing.assert_close(learned(kind, step), expected, rtol=1e-9, atol=1e-12)
