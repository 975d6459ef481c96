"""Grid regions: an .npz for each image, with the patches of the model in the boxes that they show."""

from pathlib import Path

import grid_regions
import numpy as np
import pytest
from grid_regions import grid_boxes
from PIL import Image

import toy
import toy_clip
from albef.config import UserError
from albef.data.region_files import open_regions
from albef.engine import Engine
from albef.model.verbs import Grid


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name, size in (("a.jpg", (40, 40)), ("b.png", (20, 60)), ("c.png", (30, 10)), ("d.png", (16, 16))):
        Image.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).save(folder / name)
    (folder / "b.png").write_bytes(b"broken")
    return folder


def use(monkeypatch: pytest.MonkeyPatch, engine: Engine) -> None:
    monkeypatch.setattr(Engine, "load", lambda model, device: engine)


def test_regions_are_the_patches_of_their_image(
    images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = toy.engine()
    use(monkeypatch, engine)
    grid_regions.main(["model", str(images), "--batch-size=2"])
    said = capsys.readouterr()
    assert "regions of 3 images, 2 × 2 each; 1 skipped" in said.out
    assert "b.png" in said.err
    assert not (images / "b.npz").exists()
    store = open_regions("", engine.config.image_width)
    for name in ("a.jpg", "c.png", "d.png"):
        found = store.of(images / name)
        (expected,) = engine.image_encodings([images / name])
        np.testing.assert_allclose(found.features, expected.tokens[0, 1:], rtol=2e-3, atol=2e-3)
        assert found.boxes.tolist() == [
            [0, 0, 0.5, 0.5],
            [0.5, 0, 1, 0.5],
            [0, 0.5, 0.5, 1],
            [0.5, 0.5, 1, 1],
        ]


def test_boxes_lie_where_a_model_that_crops_looks(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = toy_clip.engine()
    assert engine.config.fit == "crop"
    use(monkeypatch, engine)
    grid_regions.main(["model", str(images / "c.png"), str(images / "a.jpg"), f"--out={images / 'new'}"])
    store = open_regions(str(images / "new"), engine.config.image_width)
    wide, square = store.of(Path("c.png")).boxes, store.of(Path("a.jpg")).boxes
    np.testing.assert_allclose([wide[:, 0].min(), wide[:, 2].max()], [1 / 3, 2 / 3], atol=1e-6)
    for boxes in (wide, square):
        assert (boxes[:, 1].min(), boxes[:, 3].max()) == (0, 1)
    assert (square[:, 0].min(), square[:, 2].max()) == (0, 1)


def test_boxes_tile_the_image_row_by_row() -> None:
    boxes = grid_boxes(Grid(3, 4))
    assert boxes.shape == (12, 4)
    assert ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sum() == pytest.approx(1)
    np.testing.assert_allclose(boxes[1], [1 / 4, 0, 1 / 2, 1 / 3], rtol=1e-6)
    np.testing.assert_allclose(boxes[4], [0, 1 / 3, 1 / 4, 2 / 3], rtol=1e-6)


def test_no_file_is_replaced_or_shared(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, toy.engine())
    (images / "d.npz").write_bytes(b"mine")
    with pytest.raises(UserError, match=r"d\.npz: is there already"):
        grid_regions.places_of([images / "d.png"], None, replace=False)
    assert grid_regions.places_of([images / "d.png"], None, replace=True) == [images / "d.npz"]
    with pytest.raises(UserError, match=r"x/a\.png and a\.jpg: both would have out/a\.npz"):
        grid_regions.places_of([Path("a.jpg"), Path("x/a.png")], Path("out"), replace=False)
    with pytest.raises(SystemExit) as ended:
        grid_regions.main(["model", str(images)])
    assert ended.value.code == 2
    assert (images / "d.npz").read_bytes() == b"mine"
