"""How fast a pre-training step is on a GPU: what share of its limit, where the time goes, against the published one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar
from unittest import mock

import numpy as np
import torch
from gpu_setting import Figures, Setting, gigabytes
from published import PublishedStep
from step import STAGE, OurStep, build, operations
from torch import Tensor

from albef.config import Config, ModelConfig, TaskConfig
from albef.data.records import Batch
from albef.model import kernels
from albef.model.kernels import Kernels
from albef.systems import build_task
from albef.tasks.base import Task
from albef.train.device import compile_step, set_up
from albef.train.optim import build_optimizer
from albef.train.steps import Loop

T = TypeVar("T")
EVERY = ("image", "text", "fusion")
FREE_SHARE = 0.93  # of a GPU's memory, for the largest batch
LENGTHS = 7, 14, 21  # tokens; of which a seventh is masked, as in every batch here
WARM_UP = 3


class NoCheckpoints:
    """In the place of the writer of checkpoints."""

    folder, failure = Path(), ""

    def save(self, *state: object) -> None:
        """Keeps nothing."""

    def wait(self) -> None:
        """Has nothing to wait for."""


class Trained(NamedTuple):
    """A task with its optimizer, as a run has them."""

    task: Task
    optimizer: torch.optim.Optimizer

    @classmethod
    def of(cls, config: Config, device: torch.device) -> Trained:
        """With random weights, made on the device."""
        torch.manual_seed(0)
        kernels.use(Kernels(config.train.attention, config.train.linear))
        set_up(config.train, device)
        with device:
            task = build_task(config).train()
        optimizer = build_optimizer(task.student, config.train)
        if config.train.compile:
            compile_step(task, config.train)
        return cls(task, optimizer)


def step_seconds(setting: Setting, config: Config, trained: Trained, batch: Batch, steps: int) -> list[float]:
    """Wall time of each step of training's own loop after `WARM_UP` others, log and checkpoints left out."""
    begun: list[float] = []

    def stream() -> Iterator[Batch]:
        while True:
            begun.append(time.perf_counter())
            yield batch

    count = WARM_UP + steps
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, steps=count + 1))
    facts: dict[str, str | int | float] = {"seconds": 0.0, "skipped": 0}
    precision = config.train.precision
    loop = Loop(
        config,
        setting.folder,
        *trained,
        setting.device,
        precision,
        1000,
        facts,
        None,
        NoCheckpoints(),  # type: ignore[arg-type]
    )
    loop.run(stream(), 0)
    # A step asks for the next batch when the device has told it its losses: what is between is one step.
    return np.diff(begun)[WARM_UP:].tolist()


def products(setting: Setting) -> float:
    """Operations a second of the best of three products in the precision of the steps, that of the layers included."""
    rows, width = (256, 96) if setting.quick else (256 * 257, 768)
    square = 128 if setting.quick else 8192
    best, repeats = 0.0, 3 if setting.quick else 30
    half = setting.on_gpu
    for shape in ((rows, width, 4 * width), (rows, 4 * width, width), (square, square, square)):
        dtype = torch.bfloat16 if half else torch.float32
        left = torch.randn(shape[0], shape[1], device=setting.device, dtype=dtype)
        right = torch.randn(shape[1], shape[2], device=setting.device, dtype=dtype)
        out = torch.empty(shape[0], shape[2], device=setting.device, dtype=dtype)

        def several(left: Tensor = left, right: Tensor = right, out: Tensor = out) -> None:
            for _ in range(repeats):
                torch.mm(left, right, out=out)

        setting.seconds_of(several)
        seconds = min(setting.seconds_of(several) for _ in range(3)) / repeats
        best = max(best, 2 * float(np.prod(shape)) / seconds)
    return best


def real_operations(config: Config, batch: Batch) -> float:
    """Operations of a step's matrix products for the batch's real tokens: no padding, nothing computed again."""
    of_length = operations_by_length(config.model, config.task)
    return float(of_length(batch.mask.sum(1).double().cpu().numpy()).sum())


@functools.cache
def operations_by_length(model: ModelConfig, task_config: TaskConfig) -> np.polynomial.Polynomial:
    """Operations of a pair by the tokens of its caption.

    Counted on the meta device for three lengths. In between it is a polynomial of degree two, since attention alone is
    more than linear in the length.
    """
    config, rows, before = Config(model=model, task=task_config), 2, kernels.used()
    kernels.use(Kernels("plain", "torch"))
    with torch.device("meta"):
        task = build_task(config).train()
    counts = []
    for length in LENGTHS:
        masked = torch.arange(rows * length) % 7 == 3
        positions = masked.nonzero().squeeze(1)
        numbers = torch.arange(rows)
        ids = torch.zeros(rows, length, dtype=torch.long)
        pixels = torch.zeros(1, 1, 1, 1).expand(rows, 3, config.model.image_size, config.model.image_size)
        one = Batch(
            ids,
            torch.ones_like(ids, dtype=torch.bool),
            ids,
            positions,
            ids.flatten()[positions],
            numbers,
            numbers,
            pixels,
        ).to("meta")

        def losses_and_gradients(one: Batch = one) -> None:
            output = task(one, task.prepare(one, STAGE), STAGE)
            torch.stack(list(output.losses.values())).sum().backward()

        # Autocast, which nothing is computed with here, does not know the meta device.
        with mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext()):
            counts.append(operations(losses_and_gradients) / rows)
    kernels.use(before)
    return np.polynomial.Polynomial.fit(LENGTHS, counts, 2)


def out_of_memory(work: Callable[[], T]) -> T | None:
    """What the work gives; None where the device has no room for it."""
    try:
        return work()
    except torch.OutOfMemoryError:
        pass
    gc.collect()  # the error's traceback held the tensors
    torch.cuda.empty_cache()
    return None


def steps_part(setting: Setting) -> Iterator[Figures]:
    """Batches of 64, 256 and the largest that fits, without and with all encoders checkpointed."""
    limit = products(setting)
    yield {"best product": f"{limit / 1e12:.4g} TFLOP/s in {'bf16' if setting.on_gpu else 'fp32'}"}
    trained = Trained.of(setting.config(), setting.device)
    for encoders in ((), EVERY):
        trained.task.student.checkpoint(encoders)
        again = ", all encoders checkpointed" if encoders else ""
        peaks: dict[int, int] = {}
        for size in (2, 4) if setting.quick else (64, 256):
            found = attempt(setting, trained, size, limit)
            text, peaks[size] = found or ("does not fit", 0)
            yield {f"batch {size}{again}": text}
        size = largest_batch(peaks) if setting.on_gpu else 0
        while size > 0:
            if found := attempt(setting, trained, size, limit, steps=3):
                yield {f"largest batch, {size}{again}": found[0]}
                break
            size = int(size * 0.9) // 8 * 8


def attempt(
    setting: Setting, trained: Trained, size: int, limit: float, steps: int = 8
) -> tuple[str, int] | None:
    """What a step of so many pairs takes, in words, and its memory in bytes; None where it doesn't fit."""
    config, batch = setting.config(size), setting.batch(size)
    trained.optimizer.zero_grad()  # a step without room may have left some
    setting.peak_bytes()
    seconds = out_of_memory(
        lambda: step_seconds(setting, config, trained, batch, 2 if setting.quick else steps)
    )
    peak = setting.peak_bytes()
    return seconds and (described(config, batch, statistics.median(seconds), limit, peak), peak)


def described(config: Config, batch: Batch, seconds: float, limit: float, peak: int) -> str:
    """Time, speed, memory and share of the limit of a step."""
    share = real_operations(config, batch) / seconds / limit
    memory = f", {gigabytes(peak)}" if peak else ""
    return f"{1000 * seconds:.1f} ms, {len(batch) / seconds:.0f} pairs/s{memory}, MFU {100 * share:.1f} %"


def largest_batch(peaks: dict[int, int]) -> int:
    """The batch that should just fit, from the memory of two others: what a pair takes, and what is taken anyway."""
    if not all(peaks.values()):  # one of them did not fit
        return 0
    (small, least), (large, most) = sorted(peaks.items())
    of_pair = max(1, (most - least) // (large - small))
    room = FREE_SHARE * torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return max(0, int((room - (least - small * of_pair)) / of_pair) // 8 * 8)


def compiled_part(setting: Setting) -> Iterator[Figures]:
    """The same step with `train.compile`, beside the one without it in the same process."""
    if not setting.on_gpu:
        yield {"compiled": "not on a CPU, where no step has a fixed graph"}
        return
    size = 2 if setting.quick else 256
    batch, limit = setting.batch(size), products(setting)
    for name, settings in (("eager", {}), ("compiled", {"compile": True})):
        config = setting.config(size, **settings)
        trained = Trained.of(config, setting.device)
        setting.peak_bytes()
        begin = time.perf_counter()
        found = step_seconds(setting, config, trained, batch, 3 if setting.quick else 8)
        if name == "compiled":
            yield {"seconds until it ran": round(time.perf_counter() - begin - sum(found), 1)}
        yield {
            f"batch {size}, {name}": described(
                config, batch, statistics.median(found), limit, setting.peak_bytes()
            )
        }
        del trained
        gc.collect()


def published_part(setting: Setting) -> Iterator[Figures]:
    """The published formulation and ours in turn, both eager, in TF32 and in bf16."""
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("high")
    queue = 512 if setting.quick else 65_536
    with setting.device:
        task = build(setting.model, queue)
    published, ours = PublishedStep(task), OurStep(task)
    for size in (4,) if setting.quick else (128, 64, 32):
        batch = setting.batch(size).to(setting.device).normalised(setting.model.mean, setting.model.std)
        cases: dict[str, Callable[[], object]] = {
            f"{name}, {'bf16' if bf16 else 'TF32'}": lambda step=step, bf16=bf16: step(bf16)
            for bf16 in (True, False)
            for name, step in (
                ("published", lambda bf16, batch=batch: published.step(batch, STAGE.alpha, bf16)),
                ("ours", lambda bf16, batch=batch: ours.step(batch, bf16)),
            )
        }
        seconds = out_of_memory(lambda cases=cases: in_turn(setting, cases, 1 if setting.quick else 5))
        if seconds is not None:
            break
    else:
        raise RuntimeError("not even 32 pairs fit")
    for precision in ("TF32", "bf16"):
        theirs, mine = seconds[f"published, {precision}"], seconds[f"ours, {precision}"]
        yield {
            f"{precision}, batch {size}": f"published {1000 * theirs:.1f} ms, ours {1000 * mine:.1f} ms, "
            f"{theirs / mine:.2f}×"
        }


def in_turn(setting: Setting, cases: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of each case; the cases run in turn, and the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(rounds + 1):
        for name, case in cases.items():
            seconds[name].append(setting.seconds_of(case))
    return {name: statistics.median(found[1:]) for name, found in seconds.items()}


class SyncedStep(OurStep):
    """A step whose phases are waited for, one after the other."""

    def __init__(self, task: Task, setting: Setting) -> None:
        super().__init__(task)  # type: ignore[arg-type]
        self.setting = setting

    def timed(self, part: str, work: Callable[[], T]) -> T:
        """The work's result; its wall time is added to the part."""
        self.setting.wait()
        begin = time.perf_counter()
        result = work()
        self.setting.wait()
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - begin
        return result


def phases_part(setting: Setting) -> Iterator[Figures]:
    """Shares of the phases of our step."""
    size = 4 if setting.quick else 256
    trained = Trained.of(setting.config(size), setting.device)
    batch = setting.batch(size).to(setting.device).normalised(setting.model.mean, setting.model.std)
    step = SyncedStep(trained.task, setting)
    half = setting.on_gpu
    step.step(batch, half)
    step.seconds.clear()
    for _ in range(1 if setting.quick else 3):
        step.step(batch, half)
    total = sum(step.seconds.values())
    yield {f"batch {size}": ", ".join(f"{part} {100 * s / total:.0f} %" for part, s in step.seconds.items())}
