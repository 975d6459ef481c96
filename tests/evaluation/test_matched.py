"""Models that compare no features: every image is matched with every text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import toy_regions
from albef.config import DataConfig, UserError
from albef.data.sources import open_source
from albef.engine import Engine
from albef.evaluation.evaluate import evaluate_pairs
from albef.evaluation.ranking import ON_CPU, match_all, match_scores
from albef.model_config import SystemName
from toy_regions import CAPTIONS, SYSTEM_NAMES


@pytest.mark.parametrize("system", SYSTEM_NAMES)
def test_all_pairs_are_matched_as_each_by_itself(
    system: SystemName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, engine = toy_regions.write_images(tmp_path), toy_regions.engine(system)
    monkeypatch.setattr(
        "albef.evaluation.ranking.ON_CPU",
        ON_CPU._replace(pairs=5, images=3),
    )
    found = match_all(engine, images, CAPTIONS)
    pairs = np.stack(np.indices(found.shape), -1).reshape(-1, 2)
    np.testing.assert_allclose(
        found.ravel(), match_scores(engine, images, CAPTIONS, pairs), rtol=1e-4, atol=1e-5
    )
    assert np.ptp(found) > 0.01


def test_what_it_costs_is_said_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images, engine = toy_regions.write_images(tmp_path), toy_regions.engine("uniter")
    engine.quiet = False
    match_all(engine, images, CAPTIONS)
    assert "each of 8 images is matched with each of 16 texts: 128 passes" in capsys.readouterr().out


def figures(engine: Engine, file: Path, most: int = 0) -> dict[str, float]:
    source = open_source(DataConfig(source=str(file)), "test", 0, task="retrieval")
    return dict(evaluate_pairs(engine, source, top_k=2, most=most))


def test_an_image_without_regions_is_counted_and_left_out(tmp_path: Path) -> None:
    file, engine = toy_regions.write_data(tmp_path, "retrieval"), toy_regions.engine("lxmert")
    whole = figures(engine, file)
    assert {name: whole[f"data/{name}"] for name in ("pictures", "captions", "skipped")} == {
        "pictures": 8,
        "captions": 8,
        "skipped": 0,
    }
    assert not [name for name in whole if "/itc/" in name or "/sum/" in name]
    few = figures(engine, file, most=5)
    assert few["data/pictures"] == few["data/captions"] == 5
    (tmp_path / "6.npz").unlink()
    (tmp_path / "7.npz").write_bytes(b"broken")
    without = figures(engine, file)
    assert without["data/pictures"] == 6
    assert without["data/skipped"] == 2
    assert without["data/itm/t2i_r1"] == figures(engine, file, most=6)["data/itm/t2i_r1"]
    for regions in tmp_path.glob("*.npz"):
        regions.unlink()
    with pytest.raises(UserError, match=r"No readable image with a caption .* has no regions"):
        figures(engine, file)
