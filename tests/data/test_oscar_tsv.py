"""OSCAR's and VinVL's TSV files, as their published scripts write them."""

import json
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from albef.data.images import BadImage
from albef.data.oscar_tsv import LABELS, regions_in
from albef.data.region_files import open_regions
from albef.data.regions import LONGEST_TAGS
from albef.errors import UserError
from toy_region_files import encoded, indexed, labels_row, mutated, oscar_numbers, oscar_row

IMAGE = Path("val2014/COCO_val2014_000000057870.jpg")
FOX = {"class": "red fox", "rect": [4, 3, 20, 15], "conf": 0.5}
OBJECTS = [FOX, {"class": "car", "rect": [0, 0, 40, 30], "conf": 1.0}, FOX]


def folder_of(folder: Path, numbers: np.ndarray | None = None, labels: str | None = None) -> Path:
    """The files of three images. The second one is IMAGE, with these features and labels."""
    folder.mkdir(exist_ok=True)
    given = {
        "7": oscar_numbers(1),
        "57870": oscar_numbers() if numbers is None else numbers,
        "dev-0-img0": oscar_numbers(2),
    }
    indexed(folder / "features.tsv", [oscar_row(name, numbers) for name, numbers in given.items()], ids=True)
    rows = [labels_row(name, OBJECTS) for name in ("dev-0-img0", "7")]
    indexed(folder / "predictions.tsv", [rows[0], labels or labels_row("57870", OBJECTS), rows[1]])
    return folder


@pytest.mark.parametrize(
    "missing",
    [
        (),
        ("imageid2idx.json",),
        ("features.lineidx",),
        ("imageid2idx.json", "features.lineidx", "predictions.lineidx"),
    ],
)
def test_images_are_found_with_features_boxes_and_tags(tmp_path: Path, missing: tuple[str, ...]) -> None:
    folder = folder_of(tmp_path / "coco")
    for name in missing:
        (folder / name).unlink()
    before = sorted(tmp_path.rglob("*"))
    numbers = oscar_numbers()
    for place in (tmp_path, folder, folder / "features.tsv"):
        found = pickle.loads(pickle.dumps(open_regions(str(place), 5))).of(IMAGE)
        assert np.array_equal(found.features, numbers[:, :5])
        assert np.array_equal(found.boxes, numbers[:, 5:])
        assert found.tags == ("red fox", "car", "red fox")
        assert found.object_confidences.tolist() == [0.5, 1.0, 0.5]
    store = open_regions(str(folder), 5)
    assert len(store.of(Path("000000000007.jpg"))) == 1
    assert store.of(Path("7.jpg")).object_confidences is None  # its file of labels has three objects
    assert len(store.of(Path("dev-0-img0.png"))) == 2
    with pytest.raises(BadImage, match=r"8\.jpg: has no regions: nothing in .* has its name"):
        store.of(Path("8.jpg"))
    assert sorted(tmp_path.rglob("*")) == before


def test_annotated_objects_count_where_only_they_are_there(tmp_path: Path) -> None:
    row = labels_row("57870", OBJECTS, gt_objects=[{"class": "dog"}])
    folder = folder_of(tmp_path, labels=row)
    assert open_regions(str(folder), 5).of(IMAGE).tags == ("red fox", "car", "red fox")
    (folder / LABELS[0]).rename(folder / LABELS[1])
    assert open_regions(str(folder), 5).of(IMAGE).tags == ("dog",)


def test_labels_may_be_bare_lists_and_lie_above(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model_0060000", labels=f"57870\t{json.dumps(OBJECTS)}\n")
    (folder / "predictions.tsv").rename(tmp_path / "predictions.tsv")
    assert open_regions(str(tmp_path), 5).of(IMAGE).tags == ("red fox", "car", "red fox")
    (tmp_path / "predictions.tsv").unlink()
    with pytest.raises(
        UserError, match=r"features\.tsv: there is no predictions\.tsv or predictions_gt\.tsv beside it"
    ):
        open_regions(str(tmp_path), 5)


def test_features_for_captioning_are_read() -> None:
    numbers = oscar_numbers()
    row = json.dumps({"num_boxes": 3, "features": encoded(numbers)}).encode()
    assert np.array_equal(regions_in([row], "here").features, numbers[:, :5])


@pytest.mark.parametrize(
    "content",
    ["", "0\n", "1\n2\n3\n", "0\n9\n5\n", "0\n5\n9\n", "0\nfive\n", "0\n99999\n", "9" * 5000, "\xff"],
)
def test_an_index_that_does_not_fit_is_named(tmp_path: Path, content: str) -> None:
    folder = folder_of(tmp_path)
    (folder / "features.lineidx").write_text(content)
    with pytest.raises(
        UserError, match=r"features\.lineidx: does not fit features\.tsv beside it .*or remove it"
    ):
        open_regions(str(folder), 5)


@pytest.mark.parametrize(
    "content", ["[]", "{", '{"57870": 3}', '{"57870": -1}', '{"57870": "0"}', "[" * 100_000]
)
def test_ids_that_do_not_fit_are_named(tmp_path: Path, content: str) -> None:
    folder = folder_of(tmp_path)
    (folder / "imageid2idx.json").write_text(content)
    with pytest.raises(
        UserError, match=r"imageid2idx\.json: does not fit features\.tsv beside it .*or remove it"
    ):
        open_regions(str(folder), 5)


def test_rows_that_are_elsewhere_are_noticed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    (folder / "imageid2idx.json").write_text('{"57870": 0}')
    with pytest.raises(
        BadImage, match=r"features\.tsv: \.lineidx or imageid2idx\.json beside it does not fit it"
    ):
        open_regions(str(folder), 5).of(IMAGE)
    with (folder / "features.tsv").open("a") as file:
        file.write(oscar_row("8", oscar_numbers()))
    with pytest.raises(UserError, match=r"features\.lineidx: does not fit"):
        open_regions(str(folder), 5)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ([b"3", b"*"], "the last column is not an array in base64"),
        ([b"3", b"AAAA"], "the last column is not an array in base64"),
        (
            [b"2", encoded(oscar_numbers()).encode()],
            "holds 33 numbers, which are not feature and box of 2 regions",
        ),
        (
            [b"11", encoded(oscar_numbers()).encode()],
            "holds 33 numbers, which are not feature and box of 11 regions",
        ),
        ([b"0", b""], "has no regions, or no number of them"),
        ([b"-1", b""], "has no regions, or no number of them"),
        (["²".encode(), b""], "has no regions, or no number of them"),
        ([], "has no regions, or no number of them"),
        ([b"1", b""], "holds 0 numbers"),
        ([b"{}"], "has no num_boxes"),
        ([b'{"num_boxes": 1}'], "an object has no features"),
        ([b"3", encoded(oscar_numbers() * 2).encode()], "the last 6 of a region's 11 numbers are no box"),
        (
            [b"3", encoded(oscar_numbers() * np.nan).encode()],
            "the last 6 of a region's 11 numbers are no box",
        ),
        (
            [b"3", encoded(oscar_numbers() * np.array([np.inf] * 5 + [1] * 6, np.float32)).encode()],
            "features holds a number that is not finite",
        ),
    ],
)
def test_a_broken_row_is_named(fields: list[bytes], sentence: str) -> None:
    with pytest.raises(BadImage, match=f"^here: .*{sentence}"):
        regions_in(fields, "here")


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ("57870\tno json\n", "the second column is not JSON"),
        ("57870\n", "has no tags for image 57870"),
        ("57870\t" + "[" * 100_000 + "\n", "the second column is not JSON"),
        ("57870\t3\n", "has no list of objects"),
        ("57870\t{}\n", "has no list of objects"),
        ("57870\t[3, 4, 5]\n", "an object has no class"),
        ('57870\t[{"class": 3}]\n', "an object has no class"),
        (labels_row("57870", [FOX | {"conf": 2.0}] * 3), "a conf is not a number from 0 to 1"),
        (labels_row("57870", [FOX | {"conf": float("nan")}] * 3), "a conf is not a number from 0 to 1"),
        (
            labels_row("57870", [FOX | {"class": "x" * LONGEST_TAGS}] * 2),
            "its tags have 20,000 characters, more than",
        ),
        (labels_row("57871", []), "has no tags for image 57870"),
    ],
)
def test_broken_labels_are_named(tmp_path: Path, row: str, sentence: str) -> None:
    store = open_regions(str(folder_of(tmp_path, labels=row)), 5)
    with pytest.raises(BadImage, match=rf"predictions\.tsv(, image 57870)?: .*{sentence}"):
        store.of(IMAGE)


def detected(**changes: object) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [one | {"feature": encoded(rng.random(5, np.float32))} | changes for one in OBJECTS]


@pytest.mark.parametrize("with_index", [False, True])
def test_predictions_with_features_are_read(tmp_path: Path, with_index: bool) -> None:
    file = indexed(tmp_path / "predictions.tsv", [labels_row("1", []), labels_row("57870", detected())])
    if not with_index:
        file.with_suffix(".lineidx").unlink()
    found = open_regions(str(tmp_path), 5).of(IMAGE)
    assert found.features.shape == (3, 5)
    assert found.boxes[0] == pytest.approx([0.1, 0.1, 0.5, 0.5, 0.4, 0.4])
    assert found.tags == ("red fox", "car", "red fox")
    assert found.object_confidences.tolist() == [0.5, 1.0, 0.5]
    with pytest.raises(BadImage, match="image 1: has no objects"):
        open_regions(str(tmp_path), 5).of(Path("1.jpg"))


@pytest.mark.parametrize(
    ("objects", "others", "sentence"),
    [
        (detected(), {"image_w": 0}, "has no image_w"),
        (detected(), {"image_h": "30"}, "has no image_h"),
        (detected(feature=3), {}, "an object has no feature"),
        (detected(feature="AAA"), {}, "feature is not an array in base64"),
        (detected(feature=""), {}, "features is float32"),
        (
            [*detected(), FOX | {"feature": encoded(np.zeros(4, np.float32))}],
            {},
            "features of different widths",
        ),
        (detected(rect=[1, 2, 3]), {}, "a rect is not left, top, right, bottom"),
        (detected(rect=[1, 2, 3, 4] * 2), {}, "a rect is not left, top, right, bottom"),
        (detected(rect=[0, 0, 1, 1e300]), {}, "a rect is not left, top, right, bottom"),
        (detected(rect=[0, 0, 1, float("inf")]), {}, "a rect is not left, top, right, bottom"),
        (detected(rect=None), {}, "a rect is not left, top, right, bottom"),
        (detected(rect=[0, 0, 41, 30]), {}, "a box reaches out of its image"),
        (detected(rect=[9, 0, 4, 30]), {}, "a box ends before it begins"),
    ],
)
def test_broken_predictions_are_named(
    tmp_path: Path, objects: list[dict[str, Any]], others: dict[str, Any], sentence: str
) -> None:
    indexed(tmp_path / "predictions.tsv", [labels_row("57870", objects, **others)])
    with pytest.raises(BadImage, match=rf"predictions\.tsv, image 57870: .*{sentence}"):
        open_regions(str(tmp_path), 5).of(IMAGE)


@given(
    st.sampled_from(["features.tsv", "features.lineidx", "imageid2idx.json", "predictions.tsv", "vinvl"]),
    st.data(),
)
def test_mutated_files_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("oscar")
    if name == "vinvl":
        file = indexed(folder / "predictions.tsv", [labels_row("57870", detected())])
    else:
        file = folder_of(folder) / name
    file.write_bytes(mutated(file.read_bytes(), data))
    with suppress(UserError):
        found = open_regions(str(folder), 5).of(IMAGE)
        assert np.isfinite(found.features).all()
        assert found.boxes.shape == (len(found), 6)
