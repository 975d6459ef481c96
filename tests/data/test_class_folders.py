"""Folders of images by class: their names, which images belong to each, and what is said of the rest."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from albef.config import UserError
from albef.data.class_folders import class_folders


def image(file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), len(file.name), np.uint8)).save(file, "PNG")
    return file


def test_each_folder_is_a_class_with_all_images_below_it(tmp_path: Path) -> None:
    deep = image(tmp_path / "great_white__shark" / "more" / "deep" / "1.png")
    shark, fox = image(tmp_path / "great_white__shark" / "2.png"), image(tmp_path / "fox" / "1.png")
    found = class_folders(tmp_path)
    assert found.names == ["fox", "great white shark"]
    assert found.images == [fox, shark, deep]
    assert found.labels == [0, 1, 1]
    assert found.notes == []


def test_folders_of_one_name_are_one_class(tmp_path: Path) -> None:
    files = [image(tmp_path / name / "1.png") for name in ("big cat", "big_cat", "dog")]
    found = class_folders(tmp_path)
    assert (found.names, found.images, found.labels) == (["big cat", "dog"], files, [0, 0, 1])


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    for name in ("fox", "car"):
        image(tmp_path / name / "1.png")
    for number in range(6):
        (tmp_path / f"empty{number}").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("words")
    image(tmp_path / "beside.png")
    image(tmp_path / "fox" / ".hidden.png")
    image(tmp_path / ".thumbnails" / "1.png")
    found = class_folders(tmp_path)
    assert (found.names, len(found.images)) == (["car", "fox"], 2)
    empty, beside, others = found.notes
    assert empty == f"{tmp_path}: folders without images (7): empty0, empty1, empty2, empty3, empty4, …."
    assert beside == f"{tmp_path}: images in no class's folder (1)."
    assert "left out: 1 " in others
    assert "hidden" in others


def test_links_are_followed_and_no_image_comes_twice(tmp_path: Path) -> None:
    image(tmp_path / "elsewhere" / "n01443537" / "1.png")
    image(tmp_path / "classes" / "fox" / "1.png")
    os.symlink(tmp_path / "elsewhere" / "n01443537", tmp_path / "classes" / "goldfish")
    os.symlink(tmp_path / "classes" / "fox", tmp_path / "classes" / "vixen")
    found = class_folders(tmp_path / "classes")
    assert found.names == ["fox", "goldfish"]
    assert found.labels == [0, 1]
    assert [note.rpartition(": ")[2] for note in found.notes] == ["vixen."]


def test_every_folder_gives_a_name(tmp_path: Path) -> None:
    image(tmp_path / "__" / "1.png")
    image(tmp_path / os.fsdecode(b"caf\xe9") / "1.png")
    image(tmp_path / "fox" / "1.png")
    assert class_folders(tmp_path).names == ["__", "caf\ufffd", "fox"]


def test_a_folder_that_holds_no_classes_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has 0 folders with images"):
        class_folders(tmp_path)
    image(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"has 0 folders .* a folder of images for each class.*folder \(1\)"):
        class_folders(tmp_path)
    image(tmp_path / "fox" / "a.png")
    (tmp_path / "car").mkdir()
    with pytest.raises(UserError, match=r"has 1 folder with images.* Folders without images \(1\): car"):
        class_folders(tmp_path)


@pytest.mark.parametrize(("name", "reason"), [("none", "No such file"), ("a.txt", "Not a directory")])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "a.txt").write_text("fox")
    with pytest.raises(UserError, match=rf"{name}: .*{reason}.* for each class"):
        class_folders(tmp_path / name)
