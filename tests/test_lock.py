"""A run folder takes one training at a time, and a killed one leaves it free."""

import dataclasses
import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import toy
from albef.cli import main
from albef.cli.runs import run_state
from albef.config import Config, UserError
from albef.lock import CHILD_LOCK_FILE, LOCK_FILE, alone_in, locked
from albef.recipe import dump_config
from albef.run import prepare, run

HOLD = """
import os, sys, time
from pathlib import Path
from albef.lock import alone_in
with alone_in(Path(sys.argv[1]), sys.argv[2]):
    child = os.fork()  # as data workers are
    if child:
        print(child, flush=True)
    time.sleep(600)
"""

Holding = Callable[..., tuple[subprocess.Popen[str], int]]


@pytest.fixture
def holding() -> Iterator[Holding]:
    """Starts a process that holds a folder, and a child of that process; gives the one and the number of the other."""
    started: list[tuple[subprocess.Popen[str], int]] = []

    def hold(folder: Path, name: str = LOCK_FILE) -> tuple[subprocess.Popen[str], int]:
        command = [sys.executable, "-c", HOLD, str(folder), name]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        started.append((process, int(process.stdout.readline())))
        return started[-1]

    yield hold
    for process, child in started:
        os.kill(child, 9)
        process.kill()
        process.communicate()


@pytest.mark.parametrize("verb", ["mkdir", "open"])
def test_the_folder_of_a_lock_comes_and_goes(
    tmp_path: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever ends removes it with its lock, and whoever begins makes it again, at any moment."""
    file, makers = tmp_path / "folder" / "lock", {"mkdir": Path, "open": os}
    make, times = getattr(makers[verb], verb), []

    def interrupted(*given: object, **options: object) -> object:
        times.append(given)
        if len(times) < 3:
            file.parent.mkdir(exist_ok=True) if verb == "open" else None
            code = errno.ENOENT if verb == "open" else errno.EEXIST
            raise OSError(code, os.strerror(code), str(file))
        return make(*given, **options)

    with monkeypatch.context() as patch:
        patch.setattr(makers[verb], verb, interrupted)
        with locked(file, tmp_path, "is busy"):
            assert len(times) >= 3
            assert file.exists()
    (tmp_path / "away").symlink_to(tmp_path / "nowhere" / "lock")
    with pytest.raises(FileNotFoundError), locked(tmp_path / "away", tmp_path, "is busy"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError), locked(tmp_path / "file" / "lock", tmp_path, "is busy"):
        pass


def test_a_second_training_is_refused_with_the_holder(
    tmp_path: Path, holding: Holding, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, recipe = tmp_path / "run", tmp_path / "recipe.yaml"
    recipe.write_text(dump_config(toy.config()))
    prepare(toy.config(), folder)
    process, _ = holding(folder)
    before = sorted(folder.rglob("*"))
    for arguments in ([str(recipe), "--out", str(folder)], ["--resume", str(folder)]):
        with pytest.raises(SystemExit) as stopped:
            main(["train", *arguments])
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert f"{folder}: process {process.pid} on {socket.gethostname()} is training here" in said
    assert sorted(folder.rglob("*")) == before


def test_a_run_at_work_is_listed_so(tmp_path: Path, holding: Holding) -> None:
    folder = tmp_path / "run"
    prepare(toy.config(), folder)
    process, _ = holding(folder)
    assert run_state(folder).state == "running"
    process.kill()
    process.wait()
    assert run_state(folder).state == "started, no checkpoint"


def test_a_run_holds_its_folder_while_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Enough(Exception):
        pass

    def train_beside_another(config: Config, folder: Path, answers: Sequence[str]) -> None:
        command = [sys.executable, "-m", "albef", "train", "--resume", str(folder)]
        second = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        assert second.returncode == 2
        assert second.stderr.startswith(f"albef: {folder}: process {os.getpid()} on ")
        assert second.stderr.count("\n") == 1
        raise Enough

    monkeypatch.setattr("albef.run.train", train_beside_another)
    with pytest.raises(Enough):
        run(toy.config(), tmp_path)
    with alone_in(tmp_path):  # it is free again
        pass


def test_a_killed_training_leaves_the_folder_free_though_its_child_lives(
    tmp_path: Path, holding: Holding
) -> None:
    process, child = holding(tmp_path)
    with pytest.raises(UserError, match=f"process {process.pid} on"), alone_in(tmp_path):
        pass
    process.kill()
    process.wait()
    os.kill(child, 0)  # it is there
    with alone_in(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / LOCK_FILE).read_text()


def test_processes_that_outlive_their_parent_keep_the_folder(
    tmp_path: Path, holding: Holding, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is found before others start, which would wait for one another."""
    monkeypatch.delattr("albef.train.loop.start_processes")
    config = toy.config()
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, processes=2))
    process, _ = holding(tmp_path, CHILD_LOCK_FILE)
    with pytest.raises(UserError, match=f"process {process.pid} on .* is training here"):
        run(config, tmp_path)
    assert not (tmp_path / "log.jsonl").exists()


def test_where_there_are_no_locks_that_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    said: list[str] = []
    with alone_in(tmp_path, say=said.append):
        assert "cannot be locked ([Errno 37] No locks available)" in said[0]


def test_a_folder_that_can_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place, reason in (
        (tmp_path / "file" / "run", "a part of the path is a file"),
        (Path("/proc/run"), "its folder can't be made"),
        (tmp_path / ("x" * 300), "the name is too long"),
    ):
        with pytest.raises(UserError, match=rf"{place}: can't be written: {reason}"), alone_in(place):
            pass
