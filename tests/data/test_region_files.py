"""Regions of images: read from files, checked, padded, batched."""

import dataclasses
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import toy
from albef.config import DataConfig, UserError
from albef.data.collate import collate
from albef.data.images import BadImage
from albef.data.loader import ExampleSet, TooManyBadSamples
from albef.data.records import LeftOut, Record
from albef.data.region_files import open_regions
from albef.data.regions import ImageRegions, Regions, batch_of_regions, read_npz, sample_hidden
from albef.data.text import Tokenizer
from albef.data.words import BertWords
from toy_region_files import (
    encoded,
    indexed,
    labels_row,
    lxmert_row,
    mutated,
    oscar_numbers,
    oscar_row,
    uniter_arrays,
    uniter_database,
    uniter_record,
)

WIDTH = 4


def arrays(count: int = 2, seed: int = 0, **others: object) -> dict[str, object]:
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((2, count, 2)), axis=0)
    found: dict[str, object] = {
        "features": rng.random((count, WIDTH), np.float32),
        "boxes": np.concatenate([corners[0], corners[1]], 1).astype(np.float32),
    }
    return found | others


def saved(file: Path, **changes: object) -> Path:
    np.savez(file, **{name: array for name, array in arrays(**changes).items() if array is not None})
    return file


def test_a_file_gives_what_it_holds(tmp_path: Path) -> None:
    given = arrays(
        object_ids=np.array([3, 0]),
        object_confidences=np.array([0.5, 1.0]),
        tags=np.array(["red fox", "car"]),
    )
    np.savez(tmp_path / "a.npz", **given)
    found = open_regions("", WIDTH).of(tmp_path / "a.jpg")
    assert np.array_equal(found.features, given["features"])
    assert np.array_equal(found.boxes, given["boxes"])
    assert found.object_ids is not None
    assert found.object_ids.tolist() == [3, 0]
    assert found.tags == ("red fox", "car")
    assert found.attribute_ids is None
    assert open_regions(str(tmp_path), WIDTH).of(Path("elsewhere/a.png")).tags == found.tags


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"boxes": None}, "has no array boxes"),
        ({"features": np.zeros((0, WIDTH))}, r"features is float64 \[0, 4\]"),
        ({"features": np.full((2, WIDTH), np.nan)}, "features holds a number that is not finite"),
        ({"features": np.zeros((3, WIDTH))}, r"boxes is .* but it must be numbers, 3 × 4"),
        ({"boxes": np.array([[0, 0, 1, 1.2]] * 2)}, "a box reaches out of its image"),
        ({"boxes": np.array([[0.5, 0, 0.1, 1]] * 2)}, "a box ends before it begins"),
        ({"object_ids": np.array([0, -1])}, "object_ids must hold numbers of classes"),
        ({"object_ids": np.array([0.5, 1.0])}, "object_ids must hold numbers of classes"),
        ({"object_confidences": np.zeros(3)}, "object_confidences is"),
        ({"features": np.array([["a"] * WIDTH] * 2)}, "features is"),
        ({"tags": np.array([b"fox", b"car"])}, "its tags must be texts"),
        ({"tags": np.array([1, 2])}, "its tags must be texts"),
        ({"tags": np.array(["x" * 5001] * 2)}, "its tags have 10,002 characters"),
    ],
)
def test_what_is_broken_is_named(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(BadImage, match=rf"a\.npz: {sentence}"):
        read_npz(saved(tmp_path / "a.npz", **changes))


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 half of one"])
def test_other_files_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(BadImage, match=r"a\.npz: cannot be read as regions"):
        read_npz(tmp_path / "a.npz")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", features=np.array([{}], dtype=object), boxes=np.zeros((1, 4)))
    with pytest.raises(BadImage, match="cannot be read as regions"):
        read_npz(tmp_path / "a.npz")


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", features=np.zeros((2**14, 2**10), np.float64), boxes=np.zeros(4))
    with pytest.raises(BadImage, match="more than the regions of one image"):
        read_npz(tmp_path / "a.npz")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadImage, match=r"b\.jpg: has no regions: there is no .*b\.npz"):
        open_regions("", WIDTH).of(tmp_path / "b.jpg")
    saved(tmp_path / "a.npz")
    with pytest.raises(BadImage, match=r"4 numbers wide, but the model takes 8"):
        open_regions("", 8).of(tmp_path / "a.jpg")
    with pytest.raises(
        UserError, match=r"data\.regions \(--regions\): .* does not exist; name a folder with an \.npz"
    ):
        open_regions(str(tmp_path / "nowhere"), WIDTH)
    os.mkfifo(tmp_path / "pipe.tsv")
    for place in (tmp_path / "a.npz", tmp_path / "pipe.tsv", tmp_path.parent / "empty"):
        (tmp_path.parent / "empty").mkdir(exist_ok=True)
        with pytest.raises(
            UserError, match=r"data\.regions \(--regions\): .* holds no regions of a known kind"
        ):
            open_regions(str(place), WIDTH)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_padding_is_zero_and_masked(counts: list[int]) -> None:
    images = [ImageRegions(**arrays(count, seed)) for seed, count in enumerate(counts)]  # type: ignore[arg-type]
    batch = batch_of_regions(images)
    assert batch.mask.sum(1).tolist() == counts
    assert not batch.features[~batch.mask].any()
    for row, image in enumerate(images):
        assert np.array_equal(batch.features[row, : len(image)], image.features)
        assert np.array_equal(batch.boxes[row, : len(image)], image.boxes)
    assert batch.object_ids is None


@given(st.data())
def test_mutated_files_are_refused_or_read(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    file = tmp_path_factory.mktemp("regions") / "a.npz"
    np.savez_compressed(file, **arrays(tags=np.array(["fox", "car"])))  # type: ignore[arg-type]
    file.write_bytes(mutated(file.read_bytes(), data))
    with suppress(BadImage):
        found = read_npz(file)
        assert np.isfinite(found.features).all()
        assert len(found.boxes) == len(found)


class Named:
    """A source of images by name, each with a caption."""

    couple, left_out, notes = 1, list[LeftOut](), list[str]()

    def __init__(self, folder: Path, names: list[str]) -> None:
        self.folder, self.names = folder, names

    def __len__(self) -> int:
        return len(self.names)

    def record(self, index: int, epoch: int) -> Record:
        image = self.folder / self.names[index]
        return Record(image, ("a fox on grass",), None, None, f"row {index}")


def example_set(folder: Path, names: list[str], place: str = "", width: int = WIDTH) -> ExampleSet:
    model = dataclasses.replace(toy.MODEL, vocab_size=200)
    words = BertWords(Tokenizer.train(toy.CAPTIONS, 200), model)
    data = DataConfig(max_bad_fraction=0.4)
    return ExampleSet(Named(folder, names), words, data, model, 0, open_regions(place, width))  # type: ignore[arg-type]


def test_a_batch_has_regions_and_tags_instead_of_pixels(tmp_path: Path) -> None:
    saved(tmp_path / "a.npz", tags=np.array(["fox", "grass"]), object_ids=np.array([1, 2]))
    saved(tmp_path / "b.npz", count=3, object_ids=np.array([0, 1, 2]))
    examples = example_set(tmp_path, ["a.jpg", "b.jpg"])  # there are no images
    batch = collate([examples.example(index, 0) for index in range(2)], 0)
    assert batch.pixels is None
    visual = batch.normalised((0.5,) * 3, (0.5,) * 3).visual
    assert isinstance(visual, Regions)
    assert visual.mask.tolist() == [[True, True, False], [True] * 3]
    assert visual.tags is not None
    tokenizer = examples.words.tokenizer
    assert visual.tags.ids[0, visual.tags.mask[0]].tolist()[-1] == tokenizer.sep_id
    assert not visual.tags.mask[1].any()
    assert batch.object_ids is not None
    assert batch.hidden_regions is not None
    assert batch.hidden_regions.any(1).all()
    assert not batch.hidden_regions[~visual.mask].any()
    half = batch.slice(1, 2)
    assert torch.equal(half.visual.features, visual.features[1:])


def test_regions_of_different_detectors_are_batched_by_what_they_share() -> None:
    features, boxes = np.ones((2, 3), np.float32), np.full((2, 6), 0.5, np.float32)
    first = ImageRegions(features, boxes, classes=np.ones((2, 4), np.float32))
    second = ImageRegions(features, boxes[:, :4], classes=np.ones((2, 5), np.float32))
    batch = batch_of_regions([first, second])
    assert batch.boxes.shape == (2, 2, 4)
    assert batch.classes is None
    assert batch_of_regions([first, first]).boxes.shape == (2, 2, 6)
    assert batch_of_regions([first, first]).classes is not None


def test_an_image_without_regions_is_a_bad_sample(tmp_path: Path) -> None:
    for name in "ac":
        saved(tmp_path / f"{name}.npz")
    examples = example_set(tmp_path, ["a.jpg", "b.jpg", "c.jpg"])
    assert examples.example(1, 0).index in (0, 2)
    assert "has no regions" in examples.bad[1].reason
    with pytest.raises(TooManyBadSamples):
        example_set(tmp_path / "nowhere", ["a.jpg", "b.jpg"]).example(0, 0)


@given(st.integers(0, 9), st.integers(0, 99))
def test_some_region_is_always_hidden(count: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    hidden = sample_hidden(count, rng, 0.001)
    assert hidden.sum() == min(count, 1)
    assert sample_hidden(count, rng, 1.0).all()


def test_regions_are_hidden_as_often_as_asked() -> None:
    assert sample_hidden(20_000, np.random.default_rng(0)).mean() == pytest.approx(0.15, abs=0.01)


def lxmert_files(folder: Path) -> None:
    (folder / "a_obj36.tsv").write_bytes(lxmert_row(3, img_id="a"))
    (folder / "b_obj36.tsv").write_bytes(lxmert_row(2, img_id="b"))


def uniter_files(folder: Path) -> None:
    records = {f"{name}.npz": uniter_record(uniter_arrays(count)) for name, count in (("a", 3), ("b", 2))}
    uniter_database(folder / "feat_th0.2_max100_min10", records)


def oscar_files(folder: Path) -> None:
    indexed(folder / "features.tsv", [oscar_row("a", oscar_numbers(3)), oscar_row("b", oscar_numbers(2))])
    indexed(folder / "predictions.tsv", [labels_row(name, [{"class": "fox"}]) for name in "ab"])


def vinvl_files(folder: Path) -> None:
    rows = []
    for name, count in (("a", 3), ("b", 2)):
        one = {"class": "fox", "rect": [0, 0, 4, 3], "conf": 1, "feature": encoded(np.ones(5, np.float32))}
        rows.append(labels_row(name, [one] * count))
    indexed(folder / "predictions.tsv", rows)


@pytest.mark.parametrize("write", [lxmert_files, uniter_files, oscar_files, vinvl_files])
def test_every_kind_of_file_makes_batches(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path)
    examples = example_set(tmp_path / "images", ["a.jpg", "b.jpg"], str(tmp_path), width=5)
    batch = collate([examples.example(index, 0) for index in range(2)], 0)
    assert batch.region_features is not None
    assert batch.region_features.shape == (2, 3, 5)
    assert batch.region_mask is not None
    assert batch.region_mask.sum(1).tolist() == [3, 2]
    assert batch.tag_mask is not None
    assert batch.tag_mask.any(1).all() == (write in (oscar_files, vinvl_files))
    assert (batch.region_classes is not None) == (write is uniter_files)
    assert (batch.attribute_ids is not None) == (write is lxmert_files)
    with pytest.raises(TooManyBadSamples):
        example_set(tmp_path, ["c.jpg", "d.jpg"], str(tmp_path), width=5).example(0, 0)
