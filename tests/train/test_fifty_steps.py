"""Making training faster leaves what it computes: fifty steps in float64 still give the losses of the first version."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import toy
from albef.config import TrainConfig
from albef.tasks.base import Negatives, Stage
from albef.tasks.pretrain import Pretrain
from albef.train.optim import build_optimizer

# As commit 035d45a, before any change for speed, computed them with this very function; but for its features, which it
# rounded to fp32 and which were kept in float64 here.
LOSSES = Path(__file__).with_name("fifty_steps.json")
STEPS, PAIRS = 50, 5


def losses(steps: int) -> list[list[float]]:
    """Losses of contrast, matching and masked words in each step; nothing is drawn but from generators of our own."""
    config = toy.config()
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, dropout=0.0),
        task=dataclasses.replace(config.task, queue_size=3 * PAIRS),
    )
    task, generator = Pretrain(config).train(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in sorted(task.student.named_parameters()):
            if not name.endswith("temperature"):
                weight.copy_(torch.randn(weight.shape, generator=generator) * 0.08)
    task.teacher.module.load_state_dict(task.student.state_dict())
    task.double()
    optimizer, found = build_optimizer(task.student, TrainConfig(lr=1e-3)), []
    for step in range(steps):
        batch = toy.batch(PAIRS, step)
        batch = dataclasses.replace(batch, pixels=batch.pixels.double())
        # One image is drawn by all texts but its own, another by that one, the others by none.
        row, drawn = torch.arange(PAIRS), step % PAIRS
        image = torch.where(row == drawn, (drawn + 1) % PAIRS, drawn)
        negatives = Negatives(image=image, text=(row + 1 + step % 3) % PAIRS)
        stage = Stage(alpha=0.4)
        output = task(batch, task.prepare(batch, stage), stage, negatives)
        torch.stack(list(output.losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        task.update(output)
        found.append([loss.item() for loss in output.losses.values()])
    return found


def test_losses_are_those_of_before() -> None:
    expected = json.loads(LOSSES.read_text())
    assert len(expected) == STEPS
    for step, (now, before) in enumerate(zip(losses(STEPS), expected, strict=True)):
        assert now == pytest.approx(before, rel=0, abs=1e-8), step
