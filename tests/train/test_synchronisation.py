"""On a GPU the host waits for the device once in a step."""

import dataclasses
from pathlib import Path

import pytest
import torch

import toy
from albef.config import TaskConfig
from albef.systems import build_task
from albef.tasks.base import Stage
from albef.train.checkpoint import CheckpointWriter
from albef.train.optim import build_optimizer
from albef.train.steps import Loop

META = torch.device("meta")


def loop_for(settings: TaskConfig) -> Loop:
    config = toy.config(task=settings)
    with META:
        task = build_task(config).train()
    writer = CheckpointWriter(Path(), {}, keep=1)
    facts = {"seconds": 0.0, "skipped": 0}
    optimizer = build_optimizer(task.student, config.train)
    return Loop(config, Path(), task, optimizer, META, "fp32", 10, facts, None, writer)


SETTINGS = [
    TaskConfig(queue_size=10),
    TaskConfig(queue_size=10, losses=("itc", "mlm")),
    TaskConfig(queue_size=10, mask_same_pairs=False, teacher_dropout=True),
    TaskConfig(name="retrieval", queue_size=10),
    TaskConfig(name="entailment"),
    TaskConfig(name="nlvr"),
    TaskConfig(name="text_assignment"),
]


@pytest.mark.usefixtures("no_values")
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.name)
def test_a_step_asks_for_values_once(settings: TaskConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: asked.append(tensor) or [0.0] * tensor.numel())
    loop, batch = loop_for(settings), toy.batch(4)
    batch = dataclasses.replace(
        batch,
        label=torch.arange(4) % 2,
        second_pixels=batch.pixels if settings.name == "nlvr" else None,
    )
    output = loop.backward(loop.task, batch, 3, Stage(alpha=0.4))
    grad_norm = torch.nn.utils.clip_grad_norm_(loop.task.student.parameters(), 1.0)
    _, good, stop = loop.everywhere(output, grad_norm)
    loop.task.update(output)
    assert good
    assert not stop
    (values,) = asked
    assert values.device == META
