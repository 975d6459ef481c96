"""A pre-training step at base size against the published formulation, and where the time of ours goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import torch
from limits import Limits
from published import PublishedStep
from section import Section
from timing import interleaved
from torch.utils.flop_counter import FlopCounterMode

from albef.config import SIZES, Config, ModelConfig, TaskConfig, TrainConfig
from albef.data.records import Batch
from albef.model import kernels
from albef.tasks.base import Stage
from albef.tasks.pretrain import Pretrain
from albef.train.optim import build_optimizer

T = TypeVar("T")
STAGE = Stage(alpha=0.4)
LENGTH = 25


def batch_of(config: ModelConfig, size: int, length: int = LENGTH, seed: int = 0) -> Batch:
    """Random pixels; captions of a third of `length` to all of it, a seventh of the tokens masked."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, config.vocab_size, (size, length), generator=generator)
    mask = torch.arange(length) < torch.randint(
        max(length // 3, 2), length + 1, (size, 1), generator=generator
    )
    mask[0] = True
    positions = (mask & (torch.arange(length) % 7 == 3)).flatten().nonzero().squeeze(1)
    pixels = torch.randn(size, 3, config.image_size, config.image_size, generator=generator)
    numbers = torch.arange(size) + seed * size
    return Batch(ids, mask, ids, positions, ids.flatten()[positions], numbers, numbers, pixels)


def build(config: ModelConfig, queue_size: int = 65_536) -> Pretrain:
    """The task under training."""
    return Pretrain(Config(model=config, task=TaskConfig(queue_size=queue_size, random_queue=True))).train()


class OurStep:
    """The step of `train/loop.py` without its log."""

    def __init__(self, task: Pretrain, config: TrainConfig | None = None) -> None:
        self.task = task
        self.optimizer = build_optimizer(task.student, config or TrainConfig())
        self.seconds: dict[str, float] = {}  # CPU time of each part, added up

    def step(self, batch: Batch, bf16: bool = False) -> None:
        """One optimizer step."""
        task = self.task
        device = batch.pixels.device.type
        with torch.autocast(device, torch.bfloat16, enabled=bf16), task.teacher.cast_once():
            targets = self.timed("teacher", lambda: task.prepare(batch, STAGE))
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            output = self.timed("forward", lambda: task(batch, targets, STAGE))
        self.timed("backward", lambda: torch.stack(list(output.losses.values())).sum().backward())
        self.timed("optimizer", lambda: (self.optimizer.step(), self.optimizer.zero_grad()))
        self.timed("teacher update, queue", lambda: task.update(output))

    def timed(self, part: str, work: Callable[[], T]) -> T:
        """The work's result; its CPU time is added to the part."""
        begin = time.process_time()
        result = work()
        self.seconds[part] = self.seconds.get(part, 0.0) + time.process_time() - begin
        return result


def operations(step: Callable[[], object]) -> float:
    """Floating-point operations of the matrix products in a step."""
    counter = FlopCounterMode(display=False)
    with counter:
        step()
    return float(counter.get_total_flops())


def step_section(limits: dict[int, Limits], size: str, batch_size: int, rounds: int) -> list[Section]:
    """Both formulations in both precisions, in turn, on one thread and on all; and the phases of our step."""
    torch.manual_seed(0)
    task = build(SIZES[size])
    ours, published, batch = OurStep(task), PublishedStep(task), batch_of(SIZES[size], batch_size)
    cases: dict[str, Callable[[], object]] = {
        "published, fp32": lambda: published.step(batch, STAGE.alpha),
        "published, bf16 autocast": lambda: published.step(batch, STAGE.alpha, bf16=True),
        "ours, fp32": lambda: ours.step(batch),
        "ours, bf16 autocast": lambda: ours.step(batch, bf16=True),
    }
    counts = {name: operations(case) for name, case in cases.items()}
    if kernels.onednn_is_there():
        cases["ours, fp32, train.linear: onednn"] = lambda: by_onednn(lambda: ours.step(batch))
        # Its products are not those that the counter knows.
        counts["ours, fp32, train.linear: onednn"] = counts["ours, fp32"]
    rows, caps = [], []
    for threads, limit in limits.items():
        timings = interleaved(cases, rounds, threads)
        base, base_bf16 = (timings[f"published, {name}"].seconds for name in ("fp32", "bf16 autocast"))
        for name, timing in timings.items():
            rate = counts[name] / timing.seconds / 1e9
            rows.append(
                [
                    name,
                    f"{threads}, {'CPU' if threads == 1 else 'wall'}",
                    f"{timing.seconds:.2f} s",
                    timing.spread,
                    f"{base / timing.seconds:.2f}×",
                    f"{base_bf16 / timing.seconds:.2f}×",
                    f"{counts[name] / 1e9 / batch_size:.4g}",
                    f"{rate / limit.of('bf16' in name):.0%}",
                ]
            )
        least = counts["ours, bf16 autocast"] / limit.of(True) / 1e9
        caps.append(f"{base / least:.2f}× in {least:.2f} s on {threads} thread{'s' if threads > 1 else ''}")
    text = (
        f"Size {size}, batch {batch_size}, captions of up to {LENGTH} tokens, a queue of 65,536, optimizer included. "
        "Optimizer and teacher update take the same time for any batch, so they weigh less in larger ones. "
        '"Of the limit" compares the operations that a formulation needs itself with the limit of the matrix products. '
        "Suppose that our bf16 step ran at that limit and nothing else took time. "
        f"Against published fp32 it would then reach {' and '.join(caps)}."
    )
    header = [
        "step",
        "threads, time",
        "median",
        "spread",
        "vs published fp32",
        "vs published bf16",
        "GFLOP a pair",
        "of the limit",
    ]
    return [
        Section("How fast is a pre-training step?", text, header, rows),
        phases_section(ours, batch, size),
    ]


def by_onednn(step: Callable[[], object]) -> None:
    """The step with oneDNN's products in the place of torch's."""
    before = kernels.used()
    kernels.use(before._replace(linear="onednn"))
    step()
    kernels.use(before)


def phases_section(ours: OurStep, batch: Batch, size: str) -> Section:
    """Shares of the phases of our step."""
    rows, threads = [], torch.get_num_threads()
    torch.set_num_threads(1)
    for bf16 in (False, True):
        ours.seconds.clear()
        for _ in range(3):
            ours.step(batch, bf16)
        total = sum(ours.seconds.values())
        shares = [f"{seconds / total:.0%}" for seconds in ours.seconds.values()]
        rows.append(["bf16 autocast" if bf16 else "fp32", *shares])
    torch.set_num_threads(threads)
    text = (
        f"Size {size}, shares of the CPU time of three steps on one thread. "
        "[docs/performance.md](docs/performance.md) has the time of each part of the model."
    )
    return Section("Which phase of our step takes the time?", text, ["precision", *ours.seconds], rows)
