"""Regions in Parquet files: what was written is read, images are found by name or pixels, broken files are named."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albef.config import UserError
from albef.data import region_table
from albef.data.images import BadImage
from albef.data.region_files import open_regions
from albef.data.region_table import RegionTable, facts_of, pixels_id, written_table

WIDTH = 4


def regions(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((2, count, 2)), axis=0)
    return {
        "features": rng.random((count, WIDTH)).astype(np.float16),
        "boxes": np.concatenate([corners[0], corners[1]], 1).astype(np.float32),
        "object_ids": rng.integers(0, 9, count),
        "object_confidences": rng.random(count).astype(np.float16),
        "classes": rng.random((count, 3)).astype(np.float16),
    }


def tags_of(number: int) -> list[str] | None:
    """The tags of image `number`: of some it has none, of some the file does not say."""
    return None if number % 4 == 3 else [f"tag {number}"] * (number % 3)


def written(file: Path, names: list[str], counts: list[int], seed: int = 0, **facts: object) -> Path:
    """A file in groups of two images. Image i has regions of seed + i."""
    with written_table(file, facts) as add:
        for start in range(0, len(names), 2):
            parts = [regions(counts[i], seed + i) for i in range(start, min(start + 2, len(names)))]
            joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
            tags = [tags_of(i) for i in range(start, start + len(parts))]
            add(names[start : start + 2], counts[start : start + 2], joined, tags)
    return file


@given(st.lists(st.integers(1, 4), min_size=1, max_size=7), st.randoms(use_true_random=False))
def test_what_was_written_is_read_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], random: Any
) -> None:
    folder = tmp_path_factory.mktemp("regions")
    names = [f"image {i}" for i in range(len(counts))]
    file = written(folder / "a.parquet", names, counts)
    for store in (open_regions(str(file), WIDTH), open_regions(str(folder), WIDTH)):
        for number in random.sample(range(len(counts)), len(counts)):
            found, expected = store.of(Path(f"anywhere/image {number}.jpg")), regions(counts[number], number)
            for name, array in expected.items():
                np.testing.assert_array_equal(getattr(found, name), array.astype(np.float32))
            assert found.attribute_ids is None
            tags = tags_of(number)
            assert found.tags == (None if tags is None else tuple(tags))


def test_a_folder_is_all_its_files_and_workers_open_them_again(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", ["a", "b", "c"], [1, 2, 3])
    written(tmp_path / "b.parquet", ["d", "e"], [2, 2], seed=10)
    store = RegionTable(tmp_path, WIDTH)
    assert [len(store.of(Path(name))) for name in ("d", "c", "b", "a")] == [2, 3, 2, 1]
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.of(Path("d")).features, regions(2, 10)["features"].astype(np.float32))


def test_an_image_has_one_set_of_regions(tmp_path: Path) -> None:
    written(tmp_path / "a.parquet", ["a", "b"], [1, 2])
    written(tmp_path / "b.parquet", ["a", "b"], [1, 2])
    assert len(RegionTable(tmp_path, WIDTH).of(Path("b"))) == 2
    written(tmp_path / "c.parquet", ["b"], [2], seed=7)
    store = RegionTable(tmp_path, WIDTH)
    assert len(store.of(Path("a"))) == 1
    with pytest.raises(BadImage, match=r"b: has different regions in two rows of .*; keep one"):
        store.of(Path("b"))


def test_a_drawn_image_is_found_by_its_pixels(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    written(tmp_path / "a.parquet", [pixels_id(image)], [2])
    store = RegionTable(tmp_path, WIDTH)
    assert len(store.of(image)) == 2
    assert len(store.of(np.asfortranarray(image))) == 2
    for other in (image.reshape(6, 4, 3), 255 - image):
        with pytest.raises(
            BadImage, match=r"generated image .* has no regions in .*make them with scripts/regi"
        ):
            store.of(other)
    with pytest.raises(BadImage, match=r"dir/b\.jpg: has no regions in .* no row has 'b'"):
        store.of(Path("dir/b.jpg"))


def test_only_a_few_groups_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RegionTable(written(tmp_path / "a.parquet", [str(i) for i in range(40)], [1] * 40), WIDTH)
    read: list[int] = []
    groups = region_table.flat
    monkeypatch.setattr(region_table, "flat", lambda column: read.append(0) or groups(column))  # type: ignore[func-returns-value]
    for number in range(40):
        store.of(Path(str(number)))
    assert len(read) == 20 * (len(region_table.SCHEMA) - 1)  # each group once
    assert store._group.cache_info().currsize == region_table.KEPT_GROUPS


def test_tables_of_other_programs(tmp_path: Path) -> None:
    given = regions(2)
    table = pa.table(
        {
            "image": pa.array(["a", "b"], pa.large_string()),
            "features": pa.array([given["features"].astype(float).tolist()] * 2),
            "boxes": pa.array([given["boxes"].tolist()] * 2, pa.list_(pa.list_(pa.float32(), 4))),
            "object_ids": pa.array([[1, 2], None]),
            "height": [1, 2],
        }
    )
    pq.write_table(table.slice(0), tmp_path / "a.parquet")
    store = RegionTable(tmp_path, WIDTH)
    np.testing.assert_array_equal(store.of(Path("b")).features, given["features"].astype(np.float32))
    np.testing.assert_array_equal(store.of(Path("b")).boxes, given["boxes"])
    assert store.of(Path("a")).object_ids is not None
    assert store.of(Path("b")).object_ids is None


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"features": [[0.0] * 7]}, r"features is .*\[7\], but it must be numbers"),
        ({"features": pa.array([None], pa.list_(pa.float32()))}, "features is"),
        ({"features": [[float("nan")] * 8]}, "features holds a number that is not finite"),
        ({"features": [[None, *[0.5] * 7]]}, "features holds a number that is not finite"),
        ({"features": [[0.0] * 6]}, "features of its regions are 3 numbers wide, but the model takes 4"),
        ({"boxes": [[0.0] * 7]}, "boxes is"),
        ({"boxes": [[]]}, "boxes is|features is"),
        ({"boxes": [[0.0, 0.0, 1.0, 1.5] * 2]}, "a box reaches out of its image"),
        ({"object_ids": [[1]]}, "object_ids is"),
        ({"object_ids": [[1, None]]}, "object_ids must hold numbers of classes"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    row = {"image": ["a"], "features": [[0.5] * 8], "boxes": [[0.0, 0.0, 1.0, 1.0] * 2]} | changes
    pq.write_table(pa.table(row), tmp_path / "t.parquet")
    with pytest.raises(BadImage, match=rf"t\.parquet, image a: .*({sentence})"):
        RegionTable(tmp_path, WIDTH).of(Path("a.png"))


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"name": ["a"]}, "has no column image"),
        ({"image": ["a"], "boxes": [[0.0]]}, "has no column features"),
        ({"image": ["a"], "boxes": [[0.0]], "features": [None]}, "has no column features"),
        (
            {"image": [1], "features": [[0.5]], "boxes": [[0.0]]},
            "column image holds int64, but it must be a text",
        ),
        (
            {"image": ["a"], "features": [0.5], "boxes": [[0.0]]},
            "column features holds double, but .* list of num",
        ),
        ({"image": ["a"], "features": [["x"]], "boxes": [[0.0]]}, "column features holds list"),
        ({"image": ["a"], "features": [[0.5]], "boxes": [[0.0]], "tags": [[1]]}, "column tags holds list"),
        ({"image": ["a", None], "features": [[0.5]] * 2, "boxes": [[0.0]] * 2}, "row 1 has no image"),
    ],
)
def test_a_foreign_table_is_refused(tmp_path: Path, row: dict[str, Any], sentence: str) -> None:
    pq.write_table(pa.table(row), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=rf"t\.parquet: .*{sentence}"):
        open_regions(str(tmp_path), WIDTH)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1 something else PAR1", b"x" * 1000])
def test_what_is_no_parquet_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(content)
    with pytest.raises(UserError, match=r"t\.parquet: cannot be read as Parquet"):
        open_regions(str(tmp_path / "t.parquet"), WIDTH)


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"t\.parquet"):
        open_regions(str(tmp_path / "t.parquet"), WIDTH)


@given(st.data())
def test_damage_never_gives_other_numbers(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("damage")
    names, counts = ["a", "b", "c"], [2, 3, 1]
    file = written(folder / "t.parquet", names, counts)
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(4, len(content) - 1))
    content[at] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content[: data.draw(st.sampled_from([len(content), at]))])
    try:
        store = RegionTable(file, WIDTH)
        found = [store.of(Path(name)) for name in names]
    except UserError:
        return
    for number, image in enumerate(found):
        for name, array in regions(counts[number], number).items():
            if getattr(image, name) is not None:  # a damaged name of a column hides the column
                np.testing.assert_array_equal(getattr(image, name), array.astype(np.float32))


@pytest.mark.parametrize("fact", ["detector", "detector_seed", "classifier"])
def test_detectors_are_not_mixed(tmp_path: Path, fact: str) -> None:
    written(tmp_path / "a.parquet", ["a"], [1], **{fact: "one", "split": "train"})
    written(tmp_path / "b.parquet", ["b"], [1], **{fact: "one", "split": "test"})
    assert facts_of(pq.read_metadata(tmp_path / "a.parquet")) == {fact: "one", "split": "train"}
    assert len(RegionTable(tmp_path, WIDTH)) == 2
    written(tmp_path / "b.parquet", ["b"], [1], **{fact: "other", "split": "test"})
    with pytest.raises(UserError, match=r"b\.parquet: was made with another detector"):
        RegionTable(tmp_path, WIDTH)


def test_a_file_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    before = written(tmp_path / "a.parquet", ["a"], [1]).read_bytes()
    with pytest.raises(ZeroDivisionError), written_table(tmp_path / "a.parquet", {}):
        raise ZeroDivisionError
    assert [file.name for file in tmp_path.glob("*")] == ["a.parquet"]
    assert (tmp_path / "a.parquet").read_bytes() == before
