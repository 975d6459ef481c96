"""Pairs per second of a pre-training step at each size, and the share of its time that each part takes.

    make bench        or        python benchmarks/step.py --sizes tiny small base --threads 1

Sizes are measured in one run, step by step in turn, on random pixels and captions of 6 to 14 tokens. Times are
the process's CPU time, the median of the counted steps. `teacher` is everything without gradient.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from rich.console import Console
from rich.table import Table

from albef.config import SIZES, Config, ModelConfig, TaskConfig, TrainConfig
from albef.data.records import Batch
from albef.tasks.base import Stage
from albef.tasks.pretrain import Pretrain
from albef.train.optim import build_optimizer

BATCHES = {"tiny": 64, "small": 16, "base": 4}
PARTS = ("teacher", "forward", "backward", "optimizer", "update")


def batch_of(config: ModelConfig, size: int, seed: int) -> Batch:
    """Random pixels and captions, a seventh of the tokens masked."""
    generator = torch.Generator().manual_seed(seed)
    length = 14
    ids = torch.randint(5, config.vocab_size, (size, length), generator=generator)
    mask = torch.arange(length) < torch.randint(6, length + 1, (size, 1), generator=generator)
    positions = (mask & (torch.arange(length) % 7 == 3)).flatten().nonzero().squeeze(1)
    pixels = torch.randn(size, 3, config.image_size, config.image_size, generator=generator)
    numbers = torch.arange(size) + seed * size
    return Batch(pixels, ids, mask, ids, positions, ids.flatten()[positions], numbers, numbers)


class Stopwatch:
    """CPU seconds by part."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds what the body takes to a part."""
        begin = time.process_time()
        yield
        self.parts[name] += time.process_time() - begin


class Measured:
    """A size under measurement."""

    def __init__(self, size: str, bf16: bool) -> None:
        self.size, self.bf16, self.watches = size, bf16, list[Stopwatch]()
        self.task = Pretrain(Config(model=SIZES[size], task=TaskConfig(queue_size=1024))).train()
        self.optimizer = build_optimizer(self.task.student, TrainConfig())

    def step(self, number: int) -> None:
        """One optimizer step, timed."""
        batch, stage, watch = (
            batch_of(SIZES[self.size], BATCHES[self.size], number),
            Stage(alpha=0.4),
            Stopwatch(),
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            with watch.part("teacher"):
                targets = self.task.prepare(batch, stage)
            with watch.part("forward"):
                output = self.task(batch, targets, stage)
                loss = torch.stack(list(output.losses.values())).sum()
        with watch.part("backward"):
            loss.backward()
        with watch.part("optimizer"):
            self.optimizer.step()
            self.optimizer.zero_grad()
        with watch.part("update"):
            self.task.update(output)
        self.watches.append(watch)

    def row(self) -> list[str]:
        """Pairs per second and the share of every part."""
        counted = self.watches[1:]
        total = statistics.median(sum(watch.parts.values()) for watch in counted)
        shares = [statistics.median(watch.parts[name] for watch in counted) / total for name in PARTS]
        precision = "bf16" if self.bf16 else "fp32"
        rate = BATCHES[self.size] / total
        return [
            self.size,
            precision,
            str(BATCHES[self.size]),
            f"{rate:.1f}",
            *(f"{share:.0%}" for share in shares),
        ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=5, help="counted steps, after one to warm up")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    measured = [Measured(size, bf16) for size in given.sizes for bf16 in (False, True)]
    for number in range(given.steps + 1):
        for one in measured:
            one.step(number)
    table = Table("size", "precision", "batch", "pairs/s of CPU time", *PARTS)
    for one in measured:
        table.add_row(*one.row())
    console = Console()
    console.print(table)
    console.print(f"{platform.machine()}, torch {torch.__version__}, {given.threads} threads")


if __name__ == "__main__":
    main()
