"""Runs of models that learn without ITC: they rank by matching every pair, or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import toy
from albef.config import TaskConfig
from albef.run import run


@pytest.mark.parametrize(
    ("losses", "figure", "told"),
    [
        (("itm", "mlm"), "test/itm/t2i_r1", "ranked by"),
        (("mlm",), None, "neither ITC nor ITM, so it ranks nothing"),
    ],
)
def test_what_a_model_has_is_measured(
    losses: tuple[str, ...],
    figure: str | None,
    told: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(toy.config(TaskConfig(losses=losses, queue_size=0)), tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert [name for name in metrics if "/itc/" in name or "/sum/" in name] == []
    if figure is None:
        assert "a model that only learns mlm ranks nothing" in " ".join(capsys.readouterr().out.split())
    else:
        assert 0 <= metrics[figure] <= 1
        assert 0 <= metrics["test/itm/foil_noun"] <= 1
    report = (tmp_path / "run" / "report.html").read_text()
    assert told in report
    assert "compares no features, so it cannot choose among captions" in report or figure is None
