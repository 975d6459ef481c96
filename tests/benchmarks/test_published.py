"""The formulation that ours is timed against computes the same losses, with as many operations as the published one."""

from __future__ import annotations

import dataclasses

import published
import pytest
import step
import torch

from albef.config import SIZES
from albef.tasks.base import Negatives

TOY = dataclasses.replace(SIZES["tiny"], image_depth=2, vocab_size=64)


def test_its_losses_and_features_are_ours() -> None:
    torch.manual_seed(0)
    task, batch = step.build(TOY, queue_size=24), step.batch_of(TOY, 6, length=12)
    with torch.no_grad():  # a teacher of its own
        for parameter in task.teacher.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    negatives = Negatives(image=torch.tensor([1, 2, 3, 4, 5, 0]), text=torch.tensor([2, 3, 4, 5, 0, 1]))
    targets = task.prepare(batch, step.STAGE)
    ours = task(batch, targets, step.STAGE, negatives)
    theirs, keys = published.published_losses(task, batch, step.STAGE.alpha, negatives)
    assert theirs.keys() == ours.losses.keys()
    for name, loss in theirs.items():
        assert loss.item() == pytest.approx(ours.losses[name].item(), rel=1e-5), name
    torch.testing.assert_close(keys, (targets.keys.image, targets.keys.text), rtol=1e-5, atol=1e-6)


def test_its_operations_are_those_of_the_published_step() -> None:
    size = 4
    with torch.device("meta"):  # shapes alone, no arithmetic
        task = step.build(SIZES["base"])
    batch = step.batch_of(SIZES["base"], size).to(torch.device("meta"))
    whole = dataclasses.replace(
        batch,
        mlm_positions=torch.empty(size, dtype=torch.long, device="meta"),
        mlm_labels=torch.empty(size, dtype=torch.long, device="meta"),
    )
    given = torch.empty(size, dtype=torch.long, device="meta")

    def losses_and_gradients() -> None:
        losses, _ = published.published_losses(task, whole, step.STAGE.alpha, Negatives(given, given))
        (losses["itc"] + losses["itm"] + losses["mlm"]).backward()

    assert step.operations(losses_and_gradients) / size == pytest.approx(288.5e9, rel=0.02)
