"""What a report reads from a run: the logged steps, and the figures of `metrics.json` by split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from albef.evaluation.tables import measured
from albef.report.plots import LogLine

Metrics = Mapping[str, float]

SCORES = {"itc": "ITC", "itm": "ITM", "sum": "ITC + ITM"}


def read_log(path: Path) -> list[LogLine]:
    """The logged steps. Empty if there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]


def read_metrics(path: Path) -> Metrics:
    """The figures of a run. Empty if there is no such file."""
    stored = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return {name: value for name, value in stored.items() if not isinstance(value, str)}


def splits(metrics: Metrics) -> list[str]:
    """The splits of the metrics, in their order."""
    found = (name.rsplit("/", 2)[0] for name in metrics if name.count("/") > 1)
    return list(dict.fromkeys(found)) or list(dict.fromkeys(name.split("/")[0] for name in measured(metrics)))


def interval(metrics: Metrics, key: str) -> tuple[float | None, float | None]:
    """The ends of a metric's interval, if it has one."""
    return metrics.get(f"{key}_low"), metrics.get(f"{key}_high")


def title(split: str) -> str:
    """A split's name for readers."""
    return split.replace("_", " ").replace("/", ", ")
