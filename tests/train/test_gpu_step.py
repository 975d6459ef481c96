"""What a step does off the CPU: counted on the meta device, which computes shapes alone."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import toy
from albef.config import SIZES, Config, TaskConfig, TrainConfig
from albef.data.records import Batch
from albef.systems import build_task
from albef.tasks.base import Stage, Task

META = torch.device("meta")
STAGE = Stage(alpha=0.4)
ENCODERS: tuple[Literal["image", "text", "fusion"], ...] = ("image", "text", "fusion")


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
    memories = config.model.fusion_depth  # an image's keys and values in each layer
    assert counts["index"] == masked_words + 1 + memories  # and masks of texts
    assert counts["index_select"] == 1  # texts
    assert counts["index_put"] + counts["_index_put_impl_"] == 1 + memories  # the teacher has no gradient
    assert not {"index_copy", "nonzero", "sort"} & set(counts)


@pytest.mark.usefixtures("no_values")
def test_layers_that_are_computed_again_keep_no_copies_of_images() -> None:
    model = dataclasses.replace(SIZES["base"], vocab_size=1000)
    config = Config(model=model, task=TaskConfig(queue_size=1024), train=TrainConfig(checkpointing=ENCODERS))
    with META:
        task = build_task(config).train()
    size, patches = 64, (model.grid**2 + 1) * model.text_width * 4
    batch = toy.batch(size, length=25)
    pixels = torch.empty(size, 3, model.image_size, model.image_size, device=META)
    batch = dataclasses.replace(on_meta(batch), pixels=pixels)
    kept = kept_bytes(task, lambda: task(batch, task.prepare(batch, STAGE), STAGE))
    # Of each image its tokens before every layer, and the keys and values of every fusion layer.
    states = size * patches * (model.image_depth + 1 + 2 * model.fusion_depth)
    assert states < kept < 1.7 * 2**30


def kept_bytes(task: Task, forward: Callable[[], object]) -> int:
    """What is kept for the backward pass beside the weights, each storage once."""
    weights = {tensor.untyped_storage()._cdata for tensor in task.state_dict(keep_vars=True).values()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = forward()
    del held
    return sum(storage.nbytes() for storage in kept.values())
