"""What is written is there as it was or as it shall be: after a kill, on a full disk, with others at the same place."""

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from albef import writing
from albef.config import UserError
from albef.manifest import verify
from albef.writing import check_file, check_folder, whole_file, whole_folder, write_json, write_whole
from folders import NO_EXCHANGE, fill, tree


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    file = tmp_path / "deeper" / "config.yaml"
    write_whole(file, "one")
    write_whole(file, "two")

    def fail_halfway() -> None:
        with whole_file(file) as temporary:
            temporary.write_text("three")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert tree(tmp_path) == {"deeper/config.yaml": "two"}
    assert os.listdir(file.parent) == ["config.yaml"]


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "things"
    fill(target, "old")

    def fail_halfway() -> None:
        with whole_folder(target, ["a", "b"]) as folder:
            (folder / "a").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert (target / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["things"]
    verify(target)
    fill(target, "new")
    assert (target / "b").read_text() == "new"
    assert os.listdir(tmp_path) == ["things"]
    verify(target)


def test_what_is_not_ours_is_never_removed(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_text("dear")
    with pytest.raises(UserError, match=r"holds holiday\.jpg"):
        fill(tmp_path, "new")
    with pytest.raises(UserError, match="is a file, which would be overwritten"):
        fill(tmp_path / "holiday.jpg", "new")
    with pytest.raises(UserError, match="is not empty"), whole_folder(tmp_path, hash_name=None):
        pass
    assert tree(tmp_path) == {"holiday.jpg": "dear"}


def test_what_came_into_the_folder_meanwhile_is_kept(tmp_path: Path) -> None:
    fill(tmp_path / "things", "old")

    def come_meanwhile() -> None:
        with whole_folder(tmp_path / "things", ["a", "b"]) as temporary:
            (temporary / "a").write_text("new")
            (tmp_path / "things" / "holiday.jpg").write_text("dear")

    with pytest.raises(UserError, match=r"holds holiday\.jpg"):
        come_meanwhile()
    assert (tmp_path / "things" / "holiday.jpg").read_text() == "dear"


def test_an_empty_folder_is_filled_so_that_who_stands_in_it_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    fill(Path("."), "new")
    assert sorted(os.listdir()) == ["a", "b", "manifest.json"]
    verify(Path.cwd())
    with pytest.raises(UserError, match="while you are in it"):
        fill(Path("."), "newer")
    verify(Path.cwd())


def test_what_systems_leave_in_folders_is_in_nobodys_way(tmp_path: Path) -> None:
    for name, files in (("empty", []), ("old", ["a", "b", "manifest.json"])):
        folder = tmp_path / name
        if files:
            fill(folder, "old")
        else:
            folder.mkdir()
        (folder / ".DS_Store").touch()
        fill(folder, "new")
        assert (folder / "a").read_text() == "new"
        verify(folder)


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    for name, write in (("folder", fill), ("file", write_whole)):
        link = tmp_path / f"{name}-link"
        link.symlink_to(tmp_path / "disk" / name)
        write(link, "one")
        write(link, "two")
        assert link.is_symlink()
    assert (tmp_path / "disk" / "folder" / "a").read_text() == "two"
    assert (tmp_path / "disk" / "file").read_text() == "two"


def test_devices_and_pipes_are_written_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    check_file(pipe)
    write_whole(pipe, "content")
    reader.join()
    assert found == ["content"]
    assert pipe.is_fifo()
    with pytest.raises(UserError, match="/dev/full: can't be written: the disk is full"):
        write_whole(Path("/dev/full"), "content")


def test_new_files_and_folders_have_the_usual_permissions(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        fill(tmp_path / "things", "new")
        write_whole(tmp_path / "file", "new")
    finally:
        os.umask(mask)
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("things", "things/a", "file")]
    assert modes == [0o750, 0o640, 0o640]


# Kills itself at each of the things that Python does with files and folders in turn, and tells what is there then.
KILLED = """
import os, signal, sys
from pathlib import Path
from albef import disk, writing
from albef.manifest import verify
target, kind, swaps = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "at once"
if not swaps:
    writing.EXCHANGE = 1 << 20  # the system's own exchange fails, as on file systems that have none
EVENTS = ("open", "os.", "shutil.rmtree", "ctypes.")

def write(text):
    if kind == "folder":
        with writing.whole_folder(target, ["a", "b"]) as temporary:
            for name in "ab":
                (temporary / name).write_text(text)
    else:
        writing.write_whole(target, text)

def read():
    if kind == "file":
        return target.read_text()
    verify(target)
    (text,) = {(target / name).read_text() for name in "ab"}
    return text

write("0")
before, number, put_back = "0", 0, 0
while True:
    number += 1
    child = os.fork()
    if not child:
        left = number
        def count(event, arguments):
            global left
            if event.startswith(EVENTS):
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)
        sys.addaudithook(count)
        write(str(number))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if not target.exists():
        assert not swaps, "neither the old nor the new is there"
        writing.check_folder(target, ["a", "b"])  # the next that comes to write brings the old back
        assert read() == before
        put_back += 1
    found = read()
    assert found in (before, str(number)), (before, number, found)
    before = found
    if status == 0:
        break
assert put_back or swaps or kind == "file"
write("last")
assert read() == "last"
print(number, sorted(os.listdir(target.parent)))
"""


@pytest.mark.parametrize("kind", ["folder", "file"])
@pytest.mark.parametrize("swaps", ["at once", "in two steps"])
def test_killed_at_every_moment_the_old_or_the_new_is_whole(tmp_path: Path, kind: str, swaps: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "it"), kind, swaps], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    number, left = found.stdout.split(" ", 1)
    assert int(number) > 10
    assert left.strip() == "['it']"  # what the killed ones left is gone


@pytest.mark.parametrize("fault", [KeyboardInterrupt, OSError(errno.EIO, "fault")])
def test_a_fault_between_two_renames_leaves_the_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: BaseException
) -> None:
    fill(tmp_path / "things", "old")
    rename, left = Path.rename, [None, fault, None]

    def failing(self: Path, target: Path) -> Path:
        if error := left.pop(0):
            raise error
        return rename(self, target)

    monkeypatch.setattr(writing, "EXCHANGE", NO_EXCHANGE)
    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises((KeyboardInterrupt, UserError)):
        fill(tmp_path / "things", "new")
    assert not left
    assert (tmp_path / "things" / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["things"]


HOLD = """
import sys, time
from pathlib import Path
from albef.writing import whole_file, whole_folder
write = whole_folder if sys.argv[2] == "folder" else whole_file
with write(Path(sys.argv[1])) as temporary:
    if sys.argv[2] == "folder":
        (temporary / "half").write_text("half")
    else:
        temporary.write_text("first")
    print("at work", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def holding() -> Iterator[Callable[[Path, str], subprocess.Popen[str]]]:
    """Starts a process that is writing at a place until it is told to go on."""
    started: list[subprocess.Popen[str]] = []

    def hold(place: Path, kind: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(place), kind]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "at work\n"
        return process

    yield hold
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("there", ["nothing", "an empty folder"])
def test_a_second_writer_of_a_folder_is_refused(
    tmp_path: Path, there: str, holding: Callable[[Path, str], subprocess.Popen[str]]
) -> None:
    place = tmp_path / "idx"
    if there != "nothing":
        place.mkdir()
    process = holding(place, "folder")
    for attempt in (lambda: fill(place, "second"), lambda: check_folder(place)):
        with pytest.raises(UserError, match=rf"{place}: process {process.pid} on .* is writing it; wait"):
            attempt()
    process.communicate("go on\n")
    assert set(tree(place)) == {"half", "manifest.json"}
    verify(place)


def test_what_a_killed_writer_left_is_removed_by_the_next(
    tmp_path: Path, holding: Callable[[Path, str], subprocess.Popen[str]]
) -> None:
    process = holding(tmp_path / "idx", "folder")
    process.kill()
    process.wait()
    assert sorted(os.listdir(tmp_path)) == [".idx.writing"]
    fill(tmp_path / "idx", "new")
    assert os.listdir(tmp_path) == ["idx"]


def test_two_writers_of_a_file_follow_one_another(
    tmp_path: Path, holding: Callable[[Path, str], subprocess.Popen[str]]
) -> None:
    file = tmp_path / "metrics.json"
    process = holding(file, "file")
    second = threading.Thread(target=write_json, args=(file, "second"))
    second.start()
    process.communicate("go on\n")
    second.join()
    assert json.loads(file.read_text()) == "second"
    assert os.listdir(tmp_path) == ["metrics.json"]


def test_two_threads_do_not_remove_what_the_other_writes(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a") as first:
        first.write_text("first")
        write_whole(tmp_path / "a", "second")
    assert tree(tmp_path) == {"a": "first"}


def test_what_an_earlier_release_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".things.writing").mkdir()
    (tmp_path / ".things.writing" / "half").write_text("x")
    (tmp_path / ".file.writing").write_text("x")
    fill(tmp_path / "things", "new")
    write_whole(tmp_path / "file", "new")
    assert sorted(os.listdir(tmp_path)) == ["file", "things"]


def test_where_there_are_no_locks_everything_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    (tmp_path / ".things.writing" / "of-another").mkdir(parents=True)
    monkeypatch.setattr("fcntl.lockf", no_locks)
    fill(tmp_path / "things", "new")
    verify(tmp_path / "things")
    assert (tmp_path / ".things.writing" / "of-another").is_dir()  # whose it is nobody can tell
