"""A step's gradients are the same bit for bit each time, with several threads as well: resuming is exact for that."""

import dataclasses
from collections.abc import Iterator

import pytest
import torch

import toy
from albef import distributed
from albef.config import TaskConfig
from albef.systems import build_task
from albef.tasks.base import Stage

PAIRS, LENGTH = 48, 12  # so many that torch shares their operations out among threads
MODEL = dataclasses.replace(toy.MODEL, text_width=64, text_heads=4, text_mlp_width=128)
TASKS = ("pretrain", "retrieval", "grounding", "entailment", "nlvr", "text_assignment", "vqa")


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", TASKS)
def test_gradients_repeat_bit_for_bit(name: str) -> None:
    batch = toy.batch(PAIRS, length=LENGTH)
    answers = {
        "answer_ids": batch.ids.repeat_interleave(2, 0),
        "answer_mask": batch.mask.repeat_interleave(2, 0),
        "answer_weights": torch.ones(2 * PAIRS),
        "answer_row": torch.arange(PAIRS).repeat_interleave(2),
    }
    second = batch.pixels.flip(0) if name == "nlvr" else None
    batch = dataclasses.replace(batch, label=torch.arange(PAIRS) % 2, second_pixels=second, **answers)
    torch.manual_seed(0)
    config = dataclasses.replace(toy.config(task=TaskConfig(name=name, queue_size=10)), model=MODEL)
    task = build_task(config).train()
    seen: list[dict[str, torch.Tensor]] = []
    for _ in range(4):
        distributed.seed(1, 2, 3)
        output = task(batch, task.prepare(batch, Stage(alpha=0.4)), Stage(alpha=0.4))
        torch.stack(list(output.losses.values())).sum().backward()
        seen.append({key: p.grad.clone() for key, p in task.student.named_parameters() if p.grad is not None})
        task.zero_grad()
    different = {key for again in seen[1:] for key in again if not torch.equal(again[key], seen[0][key])}
    assert not different
