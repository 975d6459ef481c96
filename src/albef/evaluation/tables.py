"""Figures as tables for a terminal, in percent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from rich import box
from rich.table import Table

from albef.data.rows import ENTAILMENT_LABELS
from albef.errors import printable
from albef.evaluation.evaluate import FOILS, RECALLS, SCORES

WEAKEST = 5  # classes in the table

Metrics = Mapping[str, float]


def tables(metrics: Metrics) -> Iterator[Table]:
    """All tables of a model's figures. None if there are no figures."""
    if any(name.endswith("/r_mean") for name in metrics):
        yield metrics_table(metrics)
    elif measured(metrics):
        yield task_table(metrics)
    for split in dict.fromkeys(name.split("/")[0] for name in metrics):
        for name in (split, f"{split}/blind"):
            if f"{name}/share_neutral_neutral" in metrics:
                yield confusion_table(metrics, name)
        if f"{split}/classes" in metrics:
            yield weakest_table(metrics, split)


def metrics_table(metrics: Metrics) -> Table:
    """Recall (R@1 with its interval), and foil accuracy below, by split and score."""
    recalled = {"t2i": "text→image", "i2t": "image→text"}
    headings = [
        {f"{way}_r{k}": f"{name if k == 1 else ''}\nR@{k}" for way, name in recalled.items() for k in RECALLS}
        | {"r_mean": "\nmean"},
        {f"foil_{kind}": f"{'foils' if kind == FOILS[0] else ''}\n{kind}" for kind in FOILS},
    ]
    both = Table.grid()
    for heading in headings:
        table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        table.add_column("\n%", min_width=13)
        table.add_column("\nscore")
        for title in heading.values():
            table.add_column(title, justify="right")
        for split in dict.fromkeys(name.rsplit("/", 2)[0] for name in metrics):
            for score in SCORES:
                cells = [percent(metrics, f"{split}/{score}/{metric}") for metric in heading]
                if any(cells):
                    table.add_row(split.replace("_", " ").replace("/", ", "), score, *cells)
        if table.row_count:
            both.add_row(table)
    return both


def task_table(metrics: Metrics) -> Table:
    """All figures with an interval, each beside its blind control."""
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("%", "with its image", "blind: another image"):
        table.add_column(title, justify="left" if title == "%" else "right")
    for name in measured(metrics):
        split, metric = name.split("/", 1)
        blind = f"{split}/blind/{metric}"
        table.add_row(name.replace("_", " "), *(interval(metrics, key) for key in (name, blind)))
    return table


def measured(metrics: Metrics) -> list[str]:
    """The names of the figures with an interval, without those of single classes.

    A figure and its blind control count once.
    """
    bounded = [name for name in metrics if f"{name}_low" in metrics and "/class/" not in name]
    return list(dict.fromkeys(name.replace("/blind/", "/") for name in bounded))


def confusion_table(metrics: Metrics, name: str) -> Table:
    """The model's answers for each expected label, in percent of that label."""
    table = Table(box=box.SIMPLE_HEAD, title=f"{name}: answered, out of 100")
    for title in ("expected", *ENTAILMENT_LABELS):
        table.add_column(title, justify="left" if title == "expected" else "right")
    for expected, row in zip(ENTAILMENT_LABELS, confusion(metrics, name), strict=True):
        table.add_row(expected, *(f"{100 * share:.1f}" for share in row))
    return table


def weakest_table(metrics: Metrics, split: str) -> Table:
    """The classes that are told apart worst: their accuracy, and the class that most of their images went to."""
    count, classes, skipped = (
        f"{metrics[f'{split}/{name}']:,.0f}" for name in ("count", "classes", "skipped")
    )
    table = Table(
        box=box.SIMPLE_HEAD, title=f"{split}: {count} images of {classes} classes, {skipped} skipped"
    )
    for title in ("weakest classes", "right, %", "images", "most taken for, %"):
        table.add_column(title, justify="right" if title in ("right, %", "images") else "left")
    parts = [name.split("/") for name in metrics]
    names = [part[2] for part in parts if part[:2] == [split, "class"] and part[3:] == ["count"]]
    for name in sorted(names, key=lambda name: metrics[f"{split}/class/{name}/top1"])[:WEAKEST]:
        key = f"{split}/class/{name}"
        others = [part[4] for part in parts if part[:4] == [*key.split("/"), "taken_for"]]
        wrong = [f"{printable(other)} {percent(metrics, f'{key}/taken_for/{other}')}" for other in others]
        images = f"{metrics[f'{key}/count']:,.0f}"
        table.add_row(printable(name), interval(metrics, f"{key}/top1"), images, *wrong)
    return table


def confusion(metrics: Metrics, name: str) -> np.ndarray:
    """Shares of the answers, [expected, answered]. Rows add up to 1, or to 0 for a label without sentences."""
    shares = np.array(
        [[metrics[f"{name}/share_{e}_{a}"] for a in ENTAILMENT_LABELS] for e in ENTAILMENT_LABELS]
    )
    rows: np.ndarray = shares / np.maximum(shares.sum(1, keepdims=True), 1e-12)
    return rows


def interval(metrics: Metrics, name: str) -> str:
    """A figure in percent with its interval. Empty if it was not measured."""
    if name not in metrics:
        return ""
    low, value, high = (100 * metrics[key] for key in (f"{name}_low", name, f"{name}_high"))
    return f"{value:.1f} ({low:.0f}–{high:.0f})"


def percent(metrics: Metrics, name: str) -> str:
    """A metric in percent. R@1 has its interval. Empty if it was not measured."""
    if name not in metrics:
        return ""
    if name.endswith("_r1") and f"{name}_low" in metrics:
        return interval(metrics, name)
    return f"{100 * metrics[name]:.1f}"
