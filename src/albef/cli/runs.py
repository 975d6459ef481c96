"""Runs on disk: the state of each, and whether their files are undamaged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from albef.config import UserError
from albef.lock import is_held
from albef.manifest import MANIFEST_FILE, Damaged, plain, verify
from albef.objectives import LOSSES
from albef.recipe import load_recipe
from albef.train.checkpoint import checkpoints_in, step_of
from albef.train.resume import CONFIG_FILE

HEADLINES = ("t2i_r1", "accuracy")  # a figure with such an ending is shown for the run


class RunState(NamedTuple):
    """A run at a glance."""

    folder: Path
    state: str  # running, finished, trained but not evaluated, stopped, or started (no checkpoint yet)
    step: int  # of the newest checkpoint
    steps: int
    figure: str  # the first headline of metrics.json, else the last logged loss


def runs_in(folder: Path) -> list[RunState]:
    """The runs in a folder and in the folders below it, by name; raises `UserError` when there is no such folder."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name one that holds runs.")
    return [run_state(file.parent) for file in sorted(folder.rglob(CONFIG_FILE))]


def run_state(run: Path) -> RunState:
    """The state of a run, its newest step and its result."""
    checkpoints = checkpoints_in(run / "checkpoints")
    step = step_of(checkpoints[-1]) if checkpoints else 0
    try:
        steps = load_recipe(run / CONFIG_FILE).train.steps
    except UserError:
        return RunState(run, f"unreadable {CONFIG_FILE}", step, 0, "")
    metrics = read_object(run / "metrics.json")
    if is_held(run):
        state = "running"
    elif metrics and step == steps:
        state = "finished"
    elif step == steps:
        state = "trained, not evaluated"
    else:
        state = "stopped" if checkpoints else "started, no checkpoint"
    return RunState(run, state, step, steps, figure(metrics) or last_losses(run / "log.jsonl"))


def figure(metrics: dict[str, Any]) -> str:
    """The first headline among the metrics, with its name; empty without one."""
    for ending in HEADLINES:
        for name, value in metrics.items():
            if name.endswith(ending):
                return f"{name} {value:.3f}"
    return ""


def last_losses(log: Path) -> str:
    """The sum of the losses at the last logged step; empty without a log."""
    last: dict[str, Any] = {}
    try:
        for line in log.read_text("utf-8").splitlines():
            last = json.loads(line)
    except (OSError, ValueError):
        pass  # show what can be read of the log
    known = [last[name] for name in LOSSES if name in last]
    return f"loss {sum(known):.3f} at step {last['step']}" if known else ""


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file, empty when there is none."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def verified(place: Path) -> Iterator[tuple[Path, str]]:
    """Every folder with a manifest in a run, model directory or index, and what is wrong with it.

    The text is empty for an undamaged folder. Raises `UserError` if there is no manifest at all.
    """
    if not place.is_dir():
        raise UserError(f"{place}: no such folder; name a run, a model directory or an index.")
    manifests = [
        file
        for file in sorted(place.rglob(MANIFEST_FILE))
        if not any(part.startswith(".") for part in file.relative_to(place).parts)  # half-written
    ]
    unproved = [
        path for path in checkpoints_in(place / "checkpoints") if path / MANIFEST_FILE not in manifests
    ]
    if not manifests and not unproved:
        raise UserError(
            f"{place}: has no {MANIFEST_FILE}, so nothing in it can be verified; name a run, a model or an index."
        )
    for folder in [*(file.parent for file in manifests), *unproved]:
        try:
            verify(folder)
            yield folder, ""
        except Damaged as error:
            yield folder, plain(error)
