"""The top of a report: what was trained, for how long, what came out, and how training went."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from albef.config import Config, is_drawn
from albef.engine import Engine
from albef.evaluation.by_task import MEASURED
from albef.evaluation.tables import measured
from albef.progress import duration
from albef.report import page
from albef.report.cases import task_bars, words_of
from albef.report.figures import SCORES, Metrics, interval, splits, title
from albef.report.plots import INFORMATION, LOSSES, SHARES, LogLine, curves
from albef.systems import SYSTEMS


def headline(
    engine: Engine, config: Config, words: str, log: Sequence[LogLine], metrics: Metrics, run: Path
) -> str:
    """What was trained on what data, for how long, and the main result."""
    data = config.data
    pairs = log[-1]["pairs"] if log else config.train.batch_size * config.train.steps
    seconds = metrics.get("train/seconds", log[-1]["seconds"] if log else 0.0)
    figures = [(f"{pairs:,.0f}", "image–text pairs seen")]
    if seconds:
        figures = [(duration(seconds), "training time"), *figures]
        figures += [(f"{pairs / seconds:,.0f}", "pairs per second")]
    if is_drawn(data.source):
        figures += [(f"{data.num_nouns}", "nouns in the data")]
    if data.source == "pictograms":
        figures += [(f"{data.caption_noise:.0%}", "of the training captions are noisy")]
    figures += [
        (f"{sum(parameter.numel() for parameter in engine.model.parameters()):,}", "parameters"),
        seen_as(engine),
        (precision(config, run), "training precision"),
    ]
    what = f"{SYSTEMS[engine.config.system].title} ({engine.config.size}) trained on {Path(data.source).name}: {words}"
    bars = recall_bars(metrics) or "".join(task_bars(metrics, split) for split in splits(metrics)[:1])
    return (
        f'<h1>{page.text(what)}</h1>\n<p class="soft">{page.text(outcome(metrics, config))}</p>\n'
        f"{page.tiles(figures)}\n{bars}"
    )


def seen_as(engine: Engine) -> tuple[str, str]:
    """What the model sees of an image, as a figure and its words."""
    config, places = engine.config, engine.model.places
    if config.sees_regions:
        return f"{config.region_width:,}", "numbers describe a region"
    return f"{config.image_size} px", f"image size, {places.rows} × {places.columns} patches"


def outcome(metrics: Metrics, config: Config) -> str:
    """The main result in a sentence: by the sum of both scores if there are both."""
    if not MEASURED[config.task.name].by_recall:
        return task_outcome(metrics)
    for split in splits(metrics):
        for score in ("sum", "itc", "itm"):
            value = metrics.get(f"{split}/{score}/t2i_r1")
            if value is None:
                continue
            if config.data.source != "pictograms":
                return f"For {value:.0%} of captions, the right image ranks first."
            count = config.evaluate.num_ranked
            return (
                f"For {value:.0%} of captions, the right image ranks first among {count} images that the model has "
                f"never seen. Guessing would give {1 / count:.1%}. Split “{title(split)}”, ranked by {SCORES[score]}."
            )
    return "This run was not evaluated: its metrics.json holds no recall."


def task_outcome(metrics: Metrics) -> str:
    """The first figure of a task, and the same figure blind."""
    for name in measured(metrics):
        split, metric = name.split("/", 1)
        if name not in metrics:
            continue
        blind = metrics.get(f"{split}/blind/{metric}")
        control = f" Blind, with another image: {blind:.0%}." if blind is not None else ""
        words = words_of(metric)
        return f"{words[0].upper()}{words[1:]} on split “{title(split)}”: {metrics[name]:.0%}.{control}"
    return "This run was not evaluated: its metrics.json holds no figures."


def recall_bars(metrics: Metrics) -> str:
    """R@1 from text to image as bars, by split and score."""
    lines = []
    for split in (split for split in splits(metrics) if not split.endswith("/blind")):
        for score, name in SCORES.items():
            key = f"{split}/{score}/t2i_r1"
            if key in metrics:
                lines.append(page.bar(title(split), name, metrics[key], *interval(metrics, key)))
    if not lines:
        return ""
    return page.table(
        "R@1 from text to image: how often the right image ranks first. Thin line and brackets: 95 % interval",
        ["split", "ranked by", "", "R@1"],
        lines,
        kind="bars",
    )


def course(log: Sequence[LogLine]) -> str:
    """Losses and bounds on mutual information during training."""
    if not log:
        return page.section(
            "How training went", "There are no curves, since this run folder has no log.jsonl."
        )
    fused = [line for line in log if "itm" in line or "mlm" in line]
    lead = "Strong lines are smoothed, faint lines show the logged values."
    if fused and "itc" in log[0] and fused[0] is not log[0]:
        lead += " Before the vertical dashed line, only ITC was trained. From there on ITM and MLM were trained too."
    if any("mi_i2t" in line for line in log):
        lead += (
            " Each loss also gives a lower bound on mutual information, as in the paper. A bound by ITC cannot exceed "
            "the logarithm of the number of candidates, which are the batch and the queue."
        )
    panels = [
        panel for panel in (LOSSES, INFORMATION, SHARES) if any(set(panel.series) & set(line) for line in log)
    ]
    charts = curves(log, panels)
    return page.section("How training went", lead, page.wide("Curves of the training", charts, "wide chart"))


def precision(config: Config, run: Path) -> str:
    """The run's precision: from its newest checkpoint, else as set."""
    states = sorted((run / "checkpoints").glob("step-*/state.json"))
    return str(json.loads(states[-1].read_text("utf-8"))["precision"]) if states else config.train.precision
