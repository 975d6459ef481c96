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


def headline(
    engine: Engine, config: Config, words: str, log: Sequence[LogLine], metrics: Metrics, run: Path
) -> str:
    """What was trained on what, for how long, and the recall at 1 that came out."""
    data, grid = config.data, engine.config.grid
    pairs = log[-1]["pairs"] if log else config.train.batch_size * config.train.steps
    seconds = metrics.get("train/seconds", log[-1]["seconds"] if log else 0.0)
    figures = [(f"{pairs:,.0f}", "image–text pairs seen")]
    if seconds:
        figures = [(duration(seconds), "of training"), *figures]
        figures += [(f"{pairs / seconds:,.0f}", "pairs a second")]
    if is_drawn(data.source):
        figures += [(f"{data.num_nouns}", "nouns")]
    if data.source == "pictograms":
        figures += [(f"{data.caption_noise:.0%}", "of training captions noisy")]
    figures += [
        (f"{sum(parameter.numel() for parameter in engine.model.parameters()):,}", "parameters"),
        (f"{engine.config.image_size} px", f"a side, in {grid} × {grid} patches"),
        (precision(config, run), "precision of training"),
    ]
    what = f"An ALBEF “{engine.config.size}” model, trained for {words} on {Path(data.source).name}"
    bars = recall_bars(metrics) or "".join(task_bars(metrics, split) for split in splits(metrics)[:1])
    return (
        f'<h1>{page.text(what)}</h1>\n<p class="soft">{page.text(outcome(metrics, config))}</p>\n'
        f"{page.tiles(figures)}\n{bars}"
    )


def outcome(metrics: Metrics, config: Config) -> str:
    """The result in a sentence, as far as it was measured: by the sum of both scores where there is one."""
    if not MEASURED[config.task.name].by_recall:
        return task_outcome(metrics)
    for split in splits(metrics):
        for score in ("sum", "itc"):
            value = metrics.get(f"{split}/{score}/t2i_r1")
            if value is None:
                continue
            if config.data.source != "pictograms":
                return f"Asked by a caption, it names the right picture first in {value:.0%} of cases."
            count = config.evaluate.count
            return (
                f"Asked by a caption for one of {count} pictures that it has never seen, it names the right "
                f"one first in {value:.0%} of cases (split {title(split)}, by {SCORES[score]}); by chance "
                f"that would be {1 / count:.1%}."
            )
    return "This run was not evaluated: no recalls are in its metrics.json."


def task_outcome(metrics: Metrics) -> str:
    """The first figure of a task, and what is left of it blind."""
    for name in measured(metrics):
        split, metric = name.split("/", 1)
        if name not in metrics:
            continue
        blind = metrics.get(f"{split}/blind/{metric}")
        control = f"; shown another one's picture instead, in {blind:.0%}" if blind is not None else ""
        return f"{words_of(metric).capitalize()} in {metrics[name]:.0%} of cases (split {title(split)}){control}."
    return "This run was not evaluated: no figures are in its metrics.json."


def recall_bars(metrics: Metrics) -> str:
    """Recall at 1 from text to image, as bars, per split and score."""
    lines = []
    for split in splits(metrics):
        for score, name in SCORES.items():
            key = f"{split}/{score}/t2i_r1"
            if key in metrics:
                lines.append(page.bar(title(split), name, metrics[key], *interval(metrics, key)))
    if not lines:
        return ""
    note = (
        "Recall at 1, text to image. The thin line is the 95 % interval. ITC compares one vector of the "
        "text with one of the image; ITM reads both together and re-ranks the candidates of ITC; the last "
        "adds the two."
    )
    heading = "<h3>The right picture first</h3>"
    return f'{heading}<p class="soft">{note}</p><div class="bars">{"".join(lines)}</div>'


def course(log: Sequence[LogLine]) -> str:
    """Losses and bounds on mutual information over training."""
    if not log:
        return page.section("How training went", "This run folder has no log.jsonl, so there are no curves.")
    fused = [line for line in log if "itm" in line or "mlm" in line]
    lead = "Faint: as logged; strong: smoothed."
    if fused and fused[0] is not log[0]:
        lead += (
            " At the dashed line the fusion encoder joined, with matching and masked words; until there the "
            "image and the text encoder were aligned by contrast alone."
        )
    if any("mi_i2t" in line for line in log):
        lead += (
            " In the middle, what the losses say in the paper's terms: each is a lower bound on mutual "
            "information. Those of contrast cannot exceed the logarithm of the number of candidates (the "
            "batch and the queue)."
        )
    panels = [
        panel for panel in (LOSSES, INFORMATION, SHARES) if any(set(panel.series) & set(line) for line in log)
    ]
    charts = curves(log, panels)
    return page.section("How training went", lead, f'<div class="wide chart">{charts}</div>')


def precision(config: Config, run: Path) -> str:
    """What the run computed in: as its newest checkpoint says, else as set."""
    states = sorted((run / "checkpoints").glob("step-*/state.json"))
    return str(json.loads(states[-1].read_text("utf-8"))["precision"]) if states else config.train.precision
