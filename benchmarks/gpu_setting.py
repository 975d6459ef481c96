"""What the parts of `make gpu` share: the device, the sizes, a batch, and clocks that wait for the device."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from step import batch_of

from albef import distributed
from albef.config import SIZES, Config, ModelConfig, TaskConfig, TrainConfig
from albef.data.records import Batch

MOST_WORKERS = 16
Figures = dict[str, str | int | float]  # by what they are of


class Setting(NamedTuple):
    """Where the parts compute, whether with toy sizes, and a folder for their files."""

    device: torch.device
    quick: bool
    folder: Path
    seconds: float = 0.0  # that are left for this part

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    @property
    def workers(self) -> int:
        """Loading processes, as many as the machine has cores for; a toy has none."""
        return 0 if self.quick else min(MOST_WORKERS, distributed.cores())

    @property
    def size(self) -> str:
        """The size of the model that is measured."""
        return "tiny" if self.quick else "base"

    @property
    def model(self) -> ModelConfig:
        """The model that is measured, without the words that a toy does without."""
        return dataclasses.replace(SIZES[self.size], **({"vocab_size": 512} if self.quick else {}))

    def config(self, batch_size: int = 64, **train: object) -> Config:
        """A pre-training with every loss, a full queue, and the precision that a run on this device has."""
        settings: dict[str, object] = {
            "steps": 1000,
            "batch_size": batch_size,
            "warmup_steps": 0,
            "device": str(self.device),
            "precision": "bf16" if self.on_gpu else "fp32",
            "attention": "fused",
            "linear": "torch",
            **train,
        }
        task = TaskConfig(queue_size=512 if self.quick else 65_536, random_queue=True, alpha_ramp_steps=0)
        return Config(model=self.model, task=task, train=TrainConfig(**settings))  # type: ignore[arg-type]

    def batch(self, size: int) -> Batch:
        """A batch as the loader gives it: pixels as bytes, in memory that the device can copy from."""
        batch, side = batch_of(self.model, size), self.model.image_size
        pixels = torch.randint(0, 256, (size, 3, side, side), dtype=torch.uint8)
        batch = dataclasses.replace(batch, pixels=pixels)
        return batch.pin_memory() if self.on_gpu else batch

    def wait(self) -> None:
        """Waits until the device has done what it was given."""
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds_of(self, work: Callable[[], object]) -> float:
        """Wall time of the work, done by the device as well."""
        self.wait()
        begin = time.perf_counter()
        work()
        self.wait()
        return time.perf_counter() - begin

    def peak_bytes(self) -> int:
        """The most memory that tensors have filled on a GPU since the last call."""
        if not self.on_gpu:
            return 0
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak


def gigabytes(number: float) -> str:
    """Bytes for readers."""
    return f"{number / 2**30:.2f} GiB"
