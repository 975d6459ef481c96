"""The systems that see regions: trained, resumed, exported, measured and reported on own data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import toy_regions
from albef.config import TaskName
from albef.model_config import SystemName
from albef.run import run
from albef.systems import SYSTEMS
from albef.train.logging import LOSSES
from toy_regions import SYSTEM_NAMES

TASKS = [(system, task) for system in SYSTEM_NAMES for task in SYSTEMS[system].tasks]
WHOLE = {
    ("lxmert", "pretrain"),
    ("oscar", "retrieval"),
    ("uniter", "vqa"),
    ("lxmert", "nlvr"),
    ("uniter", "entailment"),
}


@pytest.mark.parametrize(("system", "task"), TASKS)
def test_every_task_is_trained_and_measured(system: SystemName, task: TaskName, tmp_path: Path) -> None:
    config = toy_regions.config(system, task, toy_regions.write_data(tmp_path / "data", task))
    run(config, tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    figure = "data/itm/t2i_r1" if task in ("pretrain", "retrieval") else "data/accuracy"
    assert 0 <= metrics[figure] <= 1
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [value for row in log for name, value in row.items() if name in LOSSES]
    assert losses
    assert np.isfinite(losses).all()
    assert (tmp_path / "run" / "report.html").is_file()
