"""LXMERT's files of regions. `tests/parity` compares a published one with what the published reader makes of it."""

import pickle
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albef.data.images import BadImage
from albef.data.lxmert_tsv import DetectedImage, read_regions, regions_of
from albef.data.region_files import open_regions
from albef.errors import UserError
from toy_region_files import encoded, lxmert_row, mutated


@given(st.integers(1, 40), st.integers(1, 20), st.integers(0, 100))
def test_a_line_comes_back(count: int, width: int, seed: int) -> None:
    found = regions_of(lxmert_row(count, width, seed), "here")
    assert (found.image_id, found.height, found.width) == (f"image{seed}", 30, 40)
    assert found.regions.features.shape == (count, width)
    assert found.pixel_boxes.shape == (count, 4)
    assert found.regions.object_ids.dtype == np.int64
    assert (found.regions.boxes[:, :2] <= found.regions.boxes[:, 2:]).all()
    assert found.regions.boxes.max() <= 1
    np.testing.assert_allclose(found.regions.boxes[:, 3] * 30, found.pixel_boxes[:, 3], rtol=1e-6)


def test_files_are_read_line_by_lxmert_row(tmp_path: Path) -> None:
    file = tmp_path / "val_obj36.tsv"
    file.write_bytes(lxmert_row(seed=1) + lxmert_row(seed=2).replace(b"\n", b"\r\n") + b"broken")
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
    with pytest.raises(BadImage, match=f"^here: .*{sentence}"):
        regions_of(lxmert_row(**changes), "here")


def test_arrays_are_not_copied() -> None:
    assert isinstance(regions_of(lxmert_row(), "here"), DetectedImage)
    assert not regions_of(lxmert_row(), "here").regions.features.flags.owndata


def test_images_are_found_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "train_obj36.tsv").write_bytes(lxmert_row(seed=1) + lxmert_row(seed=2))
    (tmp_path / "val_obj36.tsv").write_bytes(lxmert_row(2, seed=3).replace(b"\n", b"\r\n") + b"\n")
    store = open_regions(str(tmp_path), 5)
    for seed, count in ((1, 3), (2, 3), (3, 2)):
        expected = regions_of(lxmert_row(count, seed=seed), "here").regions
        for regions in (
            store.of(Path(f"far/image{seed}.jpg")),
            pickle.loads(pickle.dumps(store)).of(Path(f"image{seed}")),
        ):
            assert np.array_equal(regions.features, expected.features)
            assert np.array_equal(regions.boxes, expected.boxes)
    with pytest.raises(BadImage, match=r"far/image4\.jpg: has no regions: nothing in .* has its name"):
        store.of(Path("far/image4.jpg"))
    with pytest.raises(BadImage, match="has no file"):
        store.of(np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(BadImage, match="image1: the features of its regions are 5 numbers wide"):
        open_regions(str(tmp_path / "train_obj36.tsv"), 6).of(Path("image1.jpg"))


def test_a_broken_row_names_its_image(tmp_path: Path) -> None:
    file = tmp_path / "train_obj36.tsv"
    file.write_bytes(lxmert_row(seed=1) + lxmert_row(seed=2, boxes="AAA"))
    store = open_regions(str(file), 5)
    with pytest.raises(BadImage, match=r"train_obj36\.tsv, image image2: boxes is not an array in base64"):
        store.of(Path("image2.jpg"))
    file.write_bytes(lxmert_row(seed=9) + lxmert_row(seed=8))
    with pytest.raises(BadImage, match="was changed since it was opened"):
        store.of(Path("image1.jpg"))
    file.unlink()
    with pytest.raises(BadImage, match=r"train_obj36\.tsv: cannot be read"):
        store.of(Path("image1.jpg"))


def test_files_without_regions_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "regions.tsv"
    for content in (b"", b"image\tcaption\n", b"\n"):
        file.write_bytes(content)
        for place in (file, tmp_path):
            with pytest.raises(UserError, match="holds no regions of a known kind; name a folder"):
                open_regions(str(place), 5)


@given(st.data())
def test_mutated_rows_are_named_or_read(data: st.DataObject) -> None:
    row = mutated(lxmert_row(2, 3, seed=1), data)
    with suppress(BadImage):
        regions = regions_of(row, "here").regions
        assert len(regions.features) == len(regions.boxes)
        assert np.isfinite(regions.features).all()
