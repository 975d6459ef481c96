"""Which files below a folder are its images, and what is said of the others."""

import json
import os
import socket
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from albef.config import DataConfig, ModelConfig, UserError
from albef.data import files, formats
from albef.data.files import AGAIN, CLOSED, HIDDEN, IN_ASIDE, LOST, NO_FILE, found_below, summary
from albef.data.fingerprint import data_fingerprint
from albef.data.loader import ExampleSet, batches, list_left_out
from albef.data.sources import open_source
from albef.data.text import Tokenizer
from albef.data.words import BertWords
from albef.search.index import find_images

COFFEE = os.fsdecode(b"caf\xe9")  # é as a disk of before UTF-8 has it


def image(file: Path, kind: str = "PNG") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), len(file.name), np.uint8)).save(file, kind)
    return file


def names(folder: Path) -> list[str]:
    return found_below(folder).images


def reasons(folder: Path) -> dict[str, str]:
    return {one.origin: one.reason for one in found_below(folder).left_out}


def test_content_decides_where_the_ending_says_nothing(tmp_path: Path) -> None:
    for name, kind in (
        ("a.JPG", "JPEG"),
        ("scan.jfif", "JPEG"),
        ("from-messenger", "JPEG"),
        ("large.jpg_large", "JPEG"),
        ("0a1b2c3d", "PNG"),
        ("page.jp2", "JPEG2000"),
        ("web.avif", "AVIF"),
        ("old.ppm", "PPM"),
        ("no.ending.at-all", "WEBP"),
        ("sheet.xls", "PNG"),  # known as something else, and not looked at
        ("clip.mp4", "PNG"),
        ("all.tar.gz", "PNG"),
        ("film.thm", "JPEG"),  # the thumbnail of a film
    ):
        image(tmp_path / name, kind)
    for name in ("README", "notes.md", "labels.txt", "b.xyz"):
        (tmp_path / name).write_text("words")
    taken = ["0a1b2c3d", "a.JPG", "from-messenger", "large.jpg_large", "no.ending.at-all", "old.ppm"]
    assert names(tmp_path) == [*taken, "page.jp2", "scan.jfif", "web.avif"]
    assert reasons(tmp_path) == {}
    assert found_below(tmp_path).texts == ["labels.txt"]


def test_only_files_whose_ending_says_nothing_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "b.PNG", "c.txt", "d.mp4", "e.json", "f.py", "g", "h.odd", "i.tiff"):
        (tmp_path / name).touch()
    opened = []
    monkeypatch.setattr(files, "start_of", lambda path: opened.append(Path(path).name) or b"")
    assert names(tmp_path) == ["a.jpg", "b.PNG", "i.tiff"]
    assert sorted(opened) == ["g", "h.odd"]


def test_images_of_kinds_that_are_not_read_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image(tmp_path / "a.jpg", "JPEG")
    image(tmp_path / "favicon.ico", "ICO")
    image(tmp_path / "DSC0001.NEF", "TIFF")
    (tmp_path / "logo.svg").write_text("<svg/>")
    (tmp_path / "b.jxl").write_bytes(b"\xff\x0a....")
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    assert names(tmp_path) == ["a.jpg"]
    heic = "in HEIC, which takes an extra: pip install 'albef[heic]'"
    assert reasons(tmp_path) == {
        "DSC0001.NEF": "in a format that is not read (raw photograph)",
        "IMG_1.HEIC": heic,
        "b.jxl": "in a format that is not read (JPEG XL)",
        "favicon.ico": "in a format that is not read (icon)",
        "logo.svg": "in a format that is not read (SVG)",
    }
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: name)
    assert names(tmp_path) == ["IMG_1.HEIC", "a.jpg"]
    monkeypatch.setattr(formats.features, "check", lambda name: name != "avif")
    image(tmp_path / "web.avif", "AVIF")
    assert reasons(tmp_path)["web.avif"] == "in AVIF, which the installed Pillow can't read"


@pytest.mark.parametrize(
    "aside",
    [
        ".Trash-1000/files",
        "$RECYCLE.BIN/S-1-5",
        "@eaDir/photo.jpg",
        ".thumbnails",
        "System Volume Information",
    ],
)
def test_waste_baskets_and_hidden_folders_stay_out_unless_they_are_named(tmp_path: Path, aside: str) -> None:
    image(tmp_path / "photo.jpg", "JPEG")
    image(tmp_path / aside / "x.jpg", "JPEG")
    (tmp_path / aside / "note.pdf").touch()
    image(tmp_path / ".photo.jpg", "JPEG")
    (tmp_path / "._photo.jpg").write_bytes(b"\0\x05\x16\x07")  # what a Mac leaves on other disks: no image
    assert names(tmp_path) == ["photo.jpg"]
    assert reasons(tmp_path) == {f"{aside}/x.jpg": IN_ASIDE, ".photo.jpg": HIDDEN}
    top = tmp_path / Path(aside).parts[0]
    assert [path.name for path in find_images([tmp_path, top])[0]] == ["photo.jpg", "x.jpg"]
    assert find_images([tmp_path / ".photo.jpg"])[0] == [tmp_path / ".photo.jpg"]


def test_linked_folders_are_entered_once_and_circles_end(tmp_path: Path) -> None:
    album, disk = tmp_path / "album", tmp_path / "disk"
    image(album / "a.jpg", "JPEG")
    image(disk / "deep" / "b.jpg", "JPEG")
    (album / "2022").symlink_to("../disk")
    (album / "again").symlink_to(disk)
    (album / "circle").symlink_to(album)
    (disk / "deep" / "up").symlink_to(tmp_path)
    (album / "first.jpg").symlink_to("a.jpg")
    (album / "lost.jpg").symlink_to("/not/there.jpg")
    (album / "2021").symlink_to("/not/mounted")
    (album / "me.jpg").symlink_to("me.jpg")
    (album / "lost.py").symlink_to("nowhere.py")
    found = found_below(album)
    assert len(found.images) == 2
    assert found.images[1] == "a.jpg"
    assert found.images[0] in ("2022/deep/b.jpg", "again/deep/b.jpg")
    assert reasons(album) == {"first.jpg": AGAIN, "lost.jpg": LOST, "2021": LOST, "me.jpg": LOST}
    paths, _ = find_images([album, disk, tmp_path])
    assert Counter(path.name for path in paths) == {"a.jpg": 1, "b.jpg": 1}


def test_a_real_name_wins_over_a_link_and_two_real_names_are_two(tmp_path: Path) -> None:
    image(tmp_path / "z" / "a.jpg", "JPEG")
    (tmp_path / "a").symlink_to("z")
    (tmp_path / "b.jpg").symlink_to("z/a.jpg")
    os.link(tmp_path / "z" / "a.jpg", tmp_path / "z" / "hard.jpg")
    assert names(tmp_path) == ["z/a.jpg", "z/hard.jpg"]


def test_disks_that_number_nothing_are_read_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "a.jpg", "JPEG")
    image(tmp_path / "deep" / "b.jpg", "JPEG")
    (tmp_path / "deep" / "circle").symlink_to(tmp_path)
    (tmp_path / "c.jpg").symlink_to("a.jpg")
    monkeypatch.setattr(os, "stat", lambda path: SimpleNamespace(st_dev=0, st_ino=0))
    assert names(tmp_path) == ["a.jpg", "deep/b.jpg"]


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    image(tmp_path / "a.jpg", "JPEG")
    image(tmp_path / "folder.jpg" / "b.jpg", "JPEG")  # a folder may be called so
    for name in ("pipe.jpg", "pipe", "a.txt"):
        os.mkfifo(tmp_path / name)
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket.png"))
    listening.close()
    assert names(tmp_path) == ["a.jpg", "folder.jpg/b.jpg"]
    assert reasons(tmp_path) == {"pipe.jpg": NO_FILE, "socket.png": NO_FILE}
    assert found_below(tmp_path).texts == []


def test_what_may_not_be_opened_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image(tmp_path / "a.jpg", "JPEG")
    (tmp_path / "closed").mkdir()
    (tmp_path / "unknown").touch()
    scandir = os.scandir

    def scan(path: Path) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    def start(path: str) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", scan)
    monkeypatch.setattr(files, "start_of", start)
    assert names(tmp_path) == ["a.jpg"]
    assert reasons(tmp_path) == {"closed": CLOSED, "unknown": CLOSED}


def test_the_summary_counts_by_reason(tmp_path: Path) -> None:
    assert summary([]) == ""
    for number in range(3):
        image(tmp_path / ".bin" / f"{number}.jpg", "JPEG")
    (tmp_path / "lost.jpg").symlink_to("nowhere")
    assert summary(found_below(tmp_path).left_out) == f"Left out: 3 {IN_ASIDE}; 1 {LOST}."
    with pytest.raises(UserError, match=r"no images there.* Left out: 3 in hidden folders"):
        find_images([tmp_path])


def test_folders_to_train_on_are_read_by_the_same_rules(tmp_path: Path) -> None:
    image(tmp_path / "b.PNG")
    (tmp_path / "b.TXT").write_text("a fox")  # endings may be in capitals
    image(tmp_path / "deep" / "phone", "JPEG")
    (tmp_path / "deep" / "phone.txt").write_text("two foxes")
    image(tmp_path / "deep" / "2024.05.01 walk", "JPEG")
    (tmp_path / "deep" / "2024.05.01 walk.txt").write_text("a tree")
    image(tmp_path / f"{COFFEE}.jpg", "JPEG")
    (tmp_path / f"{COFFEE}.txt").write_text("a cup")
    image(tmp_path / "x.jpg" / "y.jpg", "JPEG")
    image(tmp_path / ".Trash-1000" / "gone.jpg", "JPEG")
    (tmp_path / "lost.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    source = open_source(DataConfig(source=str(tmp_path)), "train", 0)
    records = [source.record(index, 0) for index in range(len(source))]
    assert [(record.origin, record.captions) for record in records] == [
        ("b.PNG", ("a fox",)),
        (f"{COFFEE}.jpg", ("a cup",)),
        ("deep/2024.05.01 walk", ("a tree",)),
        ("deep/phone", ("two foxes",)),
        ("x.jpg/y.jpg", ()),
    ]
    assert all(Path(record.image).is_file() for record in records)
    assert source.notes == [f"{tmp_path}: left out: 1 {IN_ASIDE}; 1 {LOST}; 1 {NO_FILE}."]
    assert [one.origin for one in source.left_out] == [".Trash-1000/gone.jpg", "lost.jpg", "pipe.jpg"]


def test_the_fingerprint_is_that_of_what_is_read(tmp_path: Path) -> None:
    for name in ("deep.er/b.jpg", "deep/b.jpg", "deep/b.txt", "a.txt", "é.PNG"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(bytes(len(name)))
    config = DataConfig(source=str(tmp_path))
    first = data_fingerprint(config)
    assert first == "cc56cdd71d8a92d08505a0753ea24499"  # as the first release had it
    image(tmp_path / ".thumbnails" / "b.jpg", "JPEG")
    (tmp_path / "lost.jpg").symlink_to("nowhere.jpg")
    assert data_fingerprint(config) == first
    image(tmp_path / f"{COFFEE}.jpg", "JPEG")
    assert data_fingerprint(config) != first


def test_bad_samples_are_listed_by_any_name(tmp_path: Path) -> None:
    for number in range(5):
        image(tmp_path / f"{COFFEE}{number}.jpg", "JPEG")
        (tmp_path / f"{COFFEE}{number}.txt").write_text("a cup")
    (tmp_path / f"{COFFEE}3.jpg").write_bytes(b"<html>")
    (tmp_path / f"{COFFEE}5.jpg").symlink_to("nowhere")
    source = open_source(DataConfig(source=str(tmp_path)), "train", 0)
    data, listed, said = DataConfig(max_bad_fraction=0.5), tmp_path / "bad_samples.jsonl", list[str]()
    list_left_out(source, listed, said.append)
    model = ModelConfig(image_size=16, patch_size=8)
    examples = ExampleSet(source, BertWords(Tokenizer.bert(), model), data, model, 0)
    next(batches(examples, 5, bad_samples=listed))
    assert not said
    lines = [json.loads(line) for line in listed.read_text("utf-8").splitlines()]
    assert [line["origin"] for line in lines] == [f"{COFFEE}5.jpg", f"{COFFEE}3.jpg"]
