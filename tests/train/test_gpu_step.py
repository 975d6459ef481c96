"""What a step does off the CPU: counted on the meta device, which computes shapes alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import toy
from albef.data.records import Batch
from albef.tasks.base import Stage
from albef.tasks.build import build_task

META = torch.device("meta")
STAGE = Stage(alpha=0.4)


class Operations(TorchDispatchMode):
    """How often each operation is called while the block runs."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.counts[operation.overloadpacket.__name__] += 1
        return operation(*args, **(kwargs or {}))


def counted(work: Callable[[], object]) -> Counter[str]:
    """How often the work calls each operation."""
    with Operations() as operations:
        work()
    return operations.counts


def on_meta(batch: Batch) -> Batch:
    """The batch as a GPU gets it, with shapes alone."""
    return dataclasses.replace(batch, label=torch.zeros(len(batch), dtype=torch.long)).to(META)


@pytest.mark.usefixtures("no_values")
def test_off_the_cpu_nothing_is_packed() -> None:
    config = toy.config()
    with META:
        task = build_task(config).train()
    batch = on_meta(toy.batch(4))

    def step() -> None:
        output = task(batch, task.prepare(batch, STAGE), STAGE)
        torch.stack(list(output.losses.values())).sum().backward()

    counts = counted(step)
    assert counts["softmax"] + counts["_softmax"]  # operations are counted
    masked_words = 2  # of the teacher and of the student
    negatives = (
        2 + config.model.fusion_depth
    )  # texts and their masks; an image's keys and values in each layer
    assert counts["index"] == masked_words + negatives
    assert counts["index_put"] + counts["_index_put_impl_"] == 1 + 1 + config.model.fusion_depth
    assert not {"index_copy", "index_select", "index_add", "nonzero", "sort"} & set(counts)
