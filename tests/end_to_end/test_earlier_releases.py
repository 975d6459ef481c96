"""What an earlier release wrote is still used: its models, its indexes, its runs (tests/fixtures, by release)."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from albef.cli import main
from albef.engine import Engine
from albef.manifest import verify
from albef.search.index import load_index
from albef.search.search import search

FIXTURES = Path(__file__).parent.parent / "fixtures"
RELEASES = sorted(path for path in FIXTURES.iterdir() if path.is_dir())


@pytest.fixture(params=RELEASES, ids=lambda path: path.name)
def written(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what a release wrote, in which we stand."""
    copy = tmp_path / "written"
    shutil.copytree(request.param, copy)
    monkeypatch.chdir(copy)
    return copy


def test_its_model_is_read(written: Path) -> None:
    engine = Engine.load(written / "model", quiet=True)
    assert engine.config.transparent == "dropped"  # which is what it did before there was that setting
    images = sorted((written / "images").iterdir())
    features = engine.encode_images(images)
    np.testing.assert_allclose(features, np.load(written / "index" / "features.npy"), atol=1e-5)


def test_its_index_is_searched(written: Path) -> None:
    index = load_index(written / "index")
    hits = search(index, Engine.load(written / "model", quiet=True), "a fox on grass", k=3)
    assert len(hits) == 3
    assert {hit.path.name for hit in hits} < {
        f"{name}.png" for name in ("bird", "boat", "car", "fox", "house", "tree")
    }


def test_its_run_goes_on_as_that_release_would_have(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = [json.loads(line) for line in (written / "run" / "log.jsonl").read_text().splitlines()]
    main(["train", "--resume", "run"])
    capsys.readouterr()
    lines = [json.loads(line) for line in (written / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    for line, old in zip(lines, expected, strict=True):
        for name in ("itc", "itm", "mlm", "grad_norm", "lr"):
            assert line[name] == pytest.approx(old[name], rel=1e-4), name
    old, new = (
        load_file(folder / "model.safetensors") for folder in (written / "model", written / "run" / "model")
    )
    assert new.keys() == old.keys()
    for name, tensor in old.items():
        np.testing.assert_allclose(new[name], tensor, atol=2e-5, err_msg=name)
    verify(written / "run" / "model")
