"""What the system refuses while something is written is told in a sentence, before the work where that can be known."""

import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from albef import disk, writing
from albef.config import UserError
from albef.disk import check_room, free_bytes
from albef.writing import check_file, check_folder, whole_file, whole_folder, write_whole
from folders import NO_EXCHANGE, fill


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 4 KB: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def by_torch(file: Path) -> None:
    with file.open("wb") as handle:
        torch.save(torch.zeros(9999), handle)


WRITERS: dict[str, Callable[[Path], object]] = {
    "safetensors": lambda file: save_file({"a": torch.zeros(9999)}, file),
    "torch": by_torch,
    "text": lambda file: file.write_text("x" * 99999),
    "a whole file": lambda file: write_whole(file, "x" * 99999),  # in a folder, which is then what is named
}


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.usefixtures("small_files")
def test_a_file_that_may_not_grow_is_a_sentence_and_leaves_nothing(tmp_path: Path, writer: str) -> None:
    with (
        pytest.raises(UserError, match=r"x: can't be written: a file may not grow that large"),
        whole_file(tmp_path / "x") as temporary,
    ):
        WRITERS[writer](temporary)
    assert os.listdir(tmp_path) == []
    with (
        pytest.raises(UserError, match=rf"^{tmp_path}/y: can't be written: a file may not grow that large"),
        whole_folder(tmp_path / "y") as temporary,
    ):
        WRITERS[writer](temporary / "x")
    assert os.listdir(tmp_path) == []


def test_a_number_that_a_library_keeps_to_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save() -> None:
        with whole_file(tmp_path / "x") as temporary, temporary.open("wb") as handle:
            np.save(handle, np.zeros(9999), allow_pickle=False)
            raise OSError("9999 requested and 0 written")

    with pytest.raises(UserError, match="x: can't be written: the system says: 9999 requested"):
        save()
    monkeypatch.setattr(disk, "free_bytes", lambda place: 0)
    with pytest.raises(UserError, match="x: can't be written: the disk is full"):
        save()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("call", ["mkdir", "open", "rename", "fsync", "replace"])
def test_whatever_the_system_refuses_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, call: str
) -> None:
    fill(tmp_path / "things", "old")
    write_whole(tmp_path / "file", "old")

    def refuse(path: object, *_: object, **__: object) -> None:
        if isinstance(path, int):
            raise OSError(code, os.strerror(code))
        raise OSError(code, os.strerror(code), str(path))

    for write, name in ((fill, "things"), (write_whole, "file"), (fill, "new")):
        with monkeypatch.context() as patch:
            patch.setattr(os, call, refuse)
            patch.setattr(writing, "EXCHANGE", NO_EXCHANGE)
            if (call == "rename" and write is write_whole) or (call == "replace" and write is fill):
                continue
            with pytest.raises(UserError, match=rf"{name}: can't be written: {disk.REASONS[code][:20]}"):
                write(tmp_path / name, "new")
    assert (tmp_path / "things" / "a").read_text() == "old"
    assert (tmp_path / "file").read_text() == "old"


def test_places_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for place, reason in (
        (tmp_path / "file" / "x", "a part of the path is a file"),
        (tmp_path / "file" / "x" / "y", "a part of the path is a file"),
        (tmp_path / ("x" * 300), "the name is too long"),
        (tmp_path / "loop" / "x", "a link that leads back to itself"),
        (Path("/proc/albef"), "can't be made"),
        (Path("/"), "is the root of the disk"),
        (tmp_path / "a\0b", "no file can have this name"),
        (tmp_path / "\ud800", "no file can have this name"),
    ):
        for write in (check_file, check_folder, lambda file: write_whole(file, "x"), lambda f: fill(f, "x")):
            with pytest.raises(UserError, match=reason):
                write(place)


def test_a_folder_where_a_file_goes_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for place in (tmp_path, Path("."), Path("..")):
        for write in (check_file, lambda file: write_whole(file, "x")):
            with pytest.raises(UserError, match=f"^{place}: is a folder, but a file is written here"):
                write(place)
    check_file(tmp_path / "new" / "x", None)
    check_folder(tmp_path / "other")
    assert sorted(os.listdir(tmp_path)) == ["new"]


def test_long_names_are_written(tmp_path: Path) -> None:
    write_whole(tmp_path / ("é" * 120), "x")
    fill(tmp_path / ("y" * 255), "x")
    assert sorted(map(len, os.listdir(tmp_path))) == [120, 255]


def test_other_errors_are_not_called_errors_of_writing(tmp_path: Path) -> None:
    def read() -> None:
        with whole_folder(tmp_path / "things"):
            (tmp_path / "pictures" / "a.jpg").read_bytes()

    def print_to_a_closed_pipe() -> None:
        with whole_file(tmp_path / "x"):
            raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))

    with pytest.raises(FileNotFoundError):
        read()
    with pytest.raises(BrokenPipeError):
        print_to_a_closed_pipe()


def test_room_is_compared_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert free_bytes(tmp_path / "not" / "there") == pytest.approx(free_bytes(tmp_path), rel=0.1)
    (tmp_path / "file").touch()
    assert free_bytes(tmp_path / "file" / "below")
    check_room(tmp_path / "idx", 1000)
    monkeypatch.setattr(disk, "free_bytes", lambda place: 1_500_000)
    check_room(tmp_path / "idx", 1_500_000)
    with pytest.raises(UserError, match=r"idx: needs 2\.1 GB, but its disk has only 1\.5 MB free. Make room"):
        check_room(tmp_path / "idx", 2_100_000_000)
    monkeypatch.setattr(disk, "free_bytes", lambda place: None)
    check_room(tmp_path / "idx", 10**18)


def test_bytes_for_readers() -> None:
    assert [disk.size(n) for n in (0, 999, 1500, 395e3, 2.5e9, 3e15)] == [
        "0 bytes",
        "999 bytes",
        "1.5 kB",
        "395 kB",
        "2.5 GB",
        "3,000.0 TB",
    ]
