"""LXMERT's files of regions. `tests/parity` compares a published one with what the published reader makes of it."""

import base64
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albef.data.lxmert_tsv import COLUMNS, DetectedImage, read_regions, regions_of
from albef.errors import UserError


def encoded(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def line(count: int = 3, width: int = 5, seed: int = 0, **changed: str) -> bytes:
    """A line with random regions, in the genuine format."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2), dtype=np.float32), 1) * np.array([40, 30], np.float32)
    row = {
        "img_id": f"image{seed}",
        "img_h": "30",
        "img_w": "40",
        "objects_id": encoded(rng.integers(0, 1600, count)),
        "objects_conf": encoded(rng.random(count, dtype=np.float32)),
        "attrs_id": encoded(rng.integers(0, 400, count)),
        "attrs_conf": encoded(rng.random(count, dtype=np.float32)),
        "num_boxes": str(count),
        "boxes": encoded(corners.reshape(count, 4)),
        "features": encoded(rng.random((count, width), dtype=np.float32)),
    }
    return ("\t".join({**row, **changed}[name] for name in COLUMNS) + "\n").encode()


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 100))
def test_a_line_comes_back(count: int, width: int, seed: int) -> None:
    found = regions_of(line(count, width, seed), "here")
    assert (found.image_id, found.height, found.width) == (f"image{seed}", 30, 40)
    assert found.regions.features.shape == (count, width)
    assert found.pixel_boxes.shape == (count, 4)
    assert found.regions.object_ids.dtype == np.int64
    assert (found.regions.boxes[:, :2] <= found.regions.boxes[:, 2:]).all()
    assert found.regions.boxes.max() <= 1
    np.testing.assert_allclose(found.regions.boxes[:, 3] * 30, found.pixel_boxes[:, 3], rtol=1e-6)


def test_files_are_read_line_by_line(tmp_path: Path) -> None:
    file = tmp_path / "val_obj36.tsv"
    file.write_bytes(line(seed=1) + line(seed=2).replace(b"\n", b"\r\n") + b"broken")
    read = read_regions(file)
    assert [next(read).image_id, next(read).image_id] == ["image1", "image2"]
    with pytest.raises(UserError, match=r"val_obj36.tsv, line 3: has 1 fields"):
        next(read)
    with pytest.raises(UserError, match="no such file"):
        list(read_regions(tmp_path / "absent.tsv"))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"img_h": "tall"}, "img_h is 'tall', but it must be a whole number above 0"),
        ({"img_w": "0"}, "img_w is '0'"),
        ({"num_boxes": "2"}, "objects_id holds 3 numbers, but num_boxes asks for 2"),
        ({"num_boxes": "²"}, "num_boxes is"),
        ({"objects_conf": "AAA"}, "objects_conf is not an array in base64"),
        ({"objects_conf": "AAAA"}, "objects_conf is not an array in base64"),
        ({"features": "*"}, "features is not an array in base64"),
        ({"features": ""}, "features holds 0 numbers"),
        ({"features": encoded(np.zeros(7, np.float32))}, "do not divide among 3 regions"),
        ({"features": encoded(np.full(6, np.nan, np.float32))}, "features holds a number that is not finite"),
        ({"boxes": encoded(np.full(12, np.inf, np.float32))}, "boxes holds a number that is not finite"),
        ({"boxes": encoded(np.full(12, 41, np.float32))}, "a box of image image0 reaches out of the image"),
        ({"boxes": encoded(np.full(12, -1, np.float32))}, "reaches out of the image"),
        ({"attrs_id": encoded(np.full(3, -1))}, "attrs_id holds -1"),
    ],
)
def test_a_damaged_line_is_named(changes: dict[str, str], sentence: str) -> None:
    with pytest.raises(UserError, match=f"^here: .*{sentence}"):
        regions_of(line(**changes), "here")


def test_arrays_are_not_copied() -> None:
    assert isinstance(regions_of(line(), "here"), DetectedImage)
    assert not regions_of(line(), "here").regions.features.flags.owndata
