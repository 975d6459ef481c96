"""GPUs: which of them a process computes on, what they are, and what is said when the memory of one is full."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import NamedTuple

import torch

from albef.config import TrainConfig
from albef.errors import UserError

FIRST_WITH_BF16 = 8  # major number of NVIDIA's compute capability


class GPU(NamedTuple):
    """A GPU of this machine."""

    name: str
    memory_bytes: int
    bf16: bool  # whether it has bf16 arithmetic of its own


def gpus() -> list[GPU]:
    """The GPUs of this machine, in torch's order."""
    found = []
    for number in range(torch.cuda.device_count()):
        is_amd, properties = torch.version.hip is not None, torch.cuda.get_device_properties(number)
        bf16 = is_amd or properties.major >= FIRST_WITH_BF16
        found.append(GPU(properties.name, properties.total_memory, bf16))
    return found


def is_gpu(device: str) -> bool:
    """Whether a device of that name, or "auto" on this machine, is a GPU. Nothing is asked of the GPU itself."""
    return device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())


def processes(train: TrainConfig) -> int:
    """How many training processes are started without torchrun: several on a CPU, but one on a GPU."""
    return 1 if is_gpu(train.device) else train.processes


def own_gpu(device: str) -> int | None:
    """The number of the GPU that this process of torchrun's computes on; None on a CPU.

    Each process has a GPU of its own. Raises `UserError` if there are fewer GPUs than processes, and for a device that
    would be the same one for all.
    """
    if not is_gpu(device):
        return None
    number, count = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if ":" in device and count > 1:
        raise UserError(
            f"Device {device} would be shared by the {count} processes that torchrun started here: set cuda, "
            f"which gives each process a GPU of its own, or cpu."
        )
    if count > torch.cuda.device_count():
        raise UserError(
            f"torchrun started {count} processes on this machine, which has {torch.cuda.device_count()} GPUs, and each "
            f"process needs one: set --nproc-per-node={torch.cuda.device_count()}, or the device to cpu."
        )
    return int(device.partition(":")[2]) if ":" in device else number


@contextlib.contextmanager
def full_memory_told(remedy: str) -> Iterator[None]:
    """Within it a GPU that runs out of memory is told as a `UserError` with that remedy."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError(f"The memory of the GPU is full: {remedy}") from None


def remedy_in_training(train: TrainConfig, pairs: int) -> str:
    """What makes a training step of so many pairs in this process need less memory."""
    at_once = min(train.micro_batch_size or pairs, pairs)
    found = []
    if at_once > 1:
        found.append(
            f"set train.micro_batch_size to {at_once // 2}, so that fewer pairs are computed at once"
        )
    missing = [one for one in ("image", "text", "fusion") if one not in train.checkpointing]
    if missing:
        every = ", ".join((*train.checkpointing, *missing))
        found.append(f"set train.checkpointing to [{every}], which computes activations again")
    if not found:
        found.append("take a smaller model.size, or share it among GPUs with train.shard")
    return f"{', or '.join(found)}. albef estimate says what fits."
