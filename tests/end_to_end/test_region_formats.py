"""Each system trained and measured on regions in its published files."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import toy_regions
from albef.model_config import SystemName
from albef.run import run
from albef.train.logging import LOSSES
from toy_regions import lxmert_tsv, oscar_tsv, uniter_lmdb, vinvl_tsv


@pytest.mark.parametrize(
    ("system", "written"),
    [("lxmert", lxmert_tsv), ("uniter", uniter_lmdb), ("oscar", oscar_tsv), ("oscar", vinvl_tsv)],
)
def test_a_system_trains_on_its_published_files(
    system: SystemName, written: Callable[[Path], Path], tmp_path: Path
) -> None:
    config = toy_regions.config(system, "pretrain", toy_regions.write_data(tmp_path / "data", "pretrain"), 3)
    for file in (tmp_path / "data").glob("*.npz"):
        file.unlink()
    (tmp_path / "regions").mkdir()
    place = written(tmp_path / "regions")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, regions=str(place)))
    run(config, tmp_path / "run", report=False)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["data/pictures"] == 8
    assert metrics["data/skipped"] == 0
    assert 0 <= metrics["data/itm/t2i_r1"] <= 1
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert len(log) == 3
    assert np.isfinite([value for row in log for name, value in row.items() if name in LOSSES]).all()
