"""How time and memory grow: of a step with batch, caption, image and queue; of an evaluation with its gallery."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
import torch
from gallery import WORDS, captions_of
from matplotlib.figure import Figure
from memory import saved_megabytes
from section import Section
from step import STAGE, OurStep, batch_of, build
from timing import interleaved, live

from albef.config import SIZES
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.evaluation.evaluate import recalls
from albef.model.albef import ALBEF

matplotlib.use("agg")
BATCH, LENGTH, QUEUE = 4, 25, 1024  # what is not varied
CAPTIONS, TOP_K = 5, 16
POWER = "A power of 1 means that twice as much takes twice as long."
VARIED: dict[str, dict[str, Sequence[int]]] = {
    "batch, pairs": {"tiny": (1, 2, 4, 8, 16, 32, 64, 128), "small": (1, 2, 4, 8)},
    "caption, tokens": {"tiny": (4, 8, 16, 32, 64), "small": (8, 32, 128)},
    "image, pixels a side": {"tiny": (24, 48, 96, 192), "small": (64, 128, 256)},
    "queue, pairs": {size: (1024, 4096, 16_384, 65_536) for size in ("tiny", "small")},
    "gallery, images": {"tiny": (25, 50, 100, 200, 400)},
}


class Point(NamedTuple):
    """What it takes at one size of what is varied."""

    value: int
    seconds: float
    megabytes: float


def growth_section(plot: Path, rounds: int, quick: bool) -> list[Section]:
    """Tables, and the plot of all of them."""
    bf16 = torch.cpu._is_avx512_bf16_supported()
    curves: dict[str, dict[str, list[Point]]] = {}
    for name, sizes in VARIED.items():
        for size, values in list(sizes.items())[: 1 if quick else None]:
            chosen = values[:2] if quick else values
            live(f"building what is varied in {name}")
            measure = gallery_curve if name.startswith("gallery") else step_curve
            curves.setdefault(name, {})[size] = measure(name, size, chosen, rounds, bf16)
    draw(curves, plot.with_name("growth-quick.png") if quick else plot)
    sections = []
    for name, by_size in curves.items():
        rows = []
        for size, points in by_size.items():
            for before, point in zip([None, *points], points, strict=False):
                power = "" if before is None else f"{exponent(before, point):.2f}"
                row = [
                    size,
                    f"{point.value:,}",
                    f"{point.seconds:.3g} s",
                    power,
                    f"{point.megabytes:,.1f} MB",
                ]
                rows.append(row)
        header = ["size", name, "time", "power of growth", "memory"]
        title = f"How does the cost grow with the {name.partition(',')[0]}?"
        sections.append(Section(title, explained(name, bf16), header, rows))
    if not quick:
        sections[-1].plots.append(plot.relative_to(plot.parent.parent).as_posix())
    return sections


def explained(name: str, bf16: bool) -> str:
    """What the table is of."""
    precision = "bf16 autocast" if bf16 else "fp32"
    if name.startswith("gallery"):
        return (
            f"An evaluation with {CAPTIONS} captions for each image and {TOP_K} candidates for each query; "
            f"{precision}, one thread, CPU time. Memory is that of features and candidates. "
            f"Passes through the model need the same for any gallery. {POWER}"
        )
    return (
        f"A whole training step; {precision}, one thread, CPU time. "
        f"What does not vary: batch {BATCH}, captions of up to {LENGTH} tokens, a queue of {QUEUE:,}. "
        f"Memory is what autograd keeps, plus the queue. {POWER}"
    )


def exponent(before: Point, point: Point) -> float:
    """p where time grows as the p-th power of what is varied."""
    return math.log(point.seconds / before.seconds) / math.log(point.value / before.value)


def step_curve(name: str, size: str, values: Sequence[int], rounds: int, bf16: bool) -> list[Point]:
    """Steps with one thing varied; all values in turn."""
    cases: dict[str, Callable[[], object]] = {}
    megabytes = {}
    steps: dict[tuple[int, int], OurStep] = {}  # by what the model and the queue depend on
    for value in values:
        config, batch_size, length, queue = SIZES[size], BATCH, LENGTH, QUEUE
        if name.startswith("batch"):
            batch_size = value
        elif name.startswith("caption"):
            length = value
        elif name.startswith("image"):
            config = dataclasses.replace(config, image_size=value)
        else:
            queue = value
        torch.manual_seed(0)
        key = config.image_size, queue
        if key not in steps:
            steps[key] = OurStep(build(config, queue))
        ours, batch = steps[key], batch_of(config, batch_size, length)
        task = ours.task

        def losses(task=task, batch=batch) -> object:  # type: ignore[no-untyped-def]
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                return task(batch, task.prepare(batch, STAGE), STAGE)

        queue_bytes = sum(buffer.nbytes for buffer in task.queue.buffers())
        megabytes[value] = saved_megabytes(task, losses) + queue_bytes / 2**20
        cases[str(value)] = lambda ours=ours, batch=batch: ours.step(batch, bf16)
    timings = interleaved(cases, rounds)
    return [Point(value, timings[str(value)].seconds, megabytes[value]) for value in values]


def gallery_curve(name: str, size: str, values: Sequence[int], rounds: int, bf16: bool) -> list[Point]:
    """Evaluations of galleries of noise, from files' pixels to recalls."""
    torch.manual_seed(0)
    model = ALBEF(SIZES[size], ("contrast", "itm")).requires_grad_(False)
    engine = Engine(model, Tokenizer.train(WORDS, 256), quiet=True, bf16=bf16)
    rng = np.random.default_rng(0)
    side = SIZES[size].image_size
    images = list(rng.integers(0, 256, (max(values), side, side, 3), dtype=np.uint8))
    texts = captions_of(max(values) * CAPTIONS, rng)

    def evaluate(count: int) -> None:
        shown, said = images[:count], texts[: count * CAPTIONS]
        of_text = [number // CAPTIONS for number in range(len(said))]
        of_image = [list(range(CAPTIONS * row, CAPTIONS * (row + 1))) for row in range(count)]
        features = engine.encode_images(shown), engine.encode_texts(said)
        dict(recalls(engine, "all", shown, said, features, of_image, of_text, TOP_K, seed=0))

    timings = interleaved({str(value): lambda value=value: evaluate(value) for value in values}, rounds)
    # A feature is float32, a candidate its column and its log-odds.
    bytes_of_query = 4 * SIZES[size].feature_width + 8 * TOP_K
    return [
        Point(value, timings[str(value)].seconds, value * (1 + CAPTIONS) * bytes_of_query / 2**20)
        for value in values
    ]


def draw(curves: dict[str, dict[str, list[Point]]], plot: Path) -> None:
    """Time above, memory below, one column for each thing that is varied; both axes logarithmic."""
    figure = Figure(figsize=(3.0 * len(curves), 5.6), layout="constrained")
    axes = figure.subplots(2, len(curves), squeeze=False)
    for column, (name, by_size) in enumerate(curves.items()):
        for size, points in by_size.items():
            values = [point.value for point in points]
            axes[0, column].plot(values, [point.seconds for point in points], "o-", label=size)
            axes[1, column].plot(values, [point.megabytes for point in points], "o-", label=size)
        for axis in axes[:, column]:
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
            axis.grid(alpha=0.3)
            axis.set_xlabel(name)
    axes[0, 0].set_ylabel("seconds")
    axes[1, 0].set_ylabel("MB")
    axes[0, 0].legend(frameon=False)
    figure.savefig(plot, dpi=110)
