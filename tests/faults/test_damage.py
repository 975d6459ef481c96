"""Checkpoints that are damaged on disk, and disks that don't take them."""

import contextlib
import errno
import itertools
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from faulty import STEPS, assert_same_run, config, finish, losses, start, tell

import toy
from albef import writing
from albef.config import TrainConfig
from albef.manifest import Damaged, verify
from albef.run import prepare
from albef.tasks.pretrain import Pretrain
from albef.train.checkpoint import CheckpointWriter, checkpoints_in, newest_checkpoint, optimizer_tensors
from albef.train.loop import train
from albef.train.optim import build_optimizer

IDENTITY = {"config": {}, "data": "pictograms"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two checkpoints of a toy."""
    task = Pretrain(toy.config())
    optimizer = build_optimizer(task.student, TrainConfig())
    task.student.itm_head.weight.sum().backward()
    optimizer.step()
    with CheckpointWriter(tmp_path, IDENTITY, keep=2) as writer:
        writer.save(1, task.state_dict(), optimizer_tensors(optimizer), {})
        writer.save(2, task.state_dict(), optimizer_tensors(optimizer), {})
    return tmp_path


def used(folder: Path) -> tuple[str, int]:
    """The checkpoint that would be gone on from, and how many damaged ones were reported."""
    said: list[str] = []
    found = newest_checkpoint(folder, said.append)
    assert found is not None
    return found[0].name, len(said)


def test_bit_flips_and_truncations(folder: Path) -> None:
    random_ = random.Random(0)
    newest = checkpoints_in(folder)[-1]
    files = sorted(newest.iterdir())
    sizes = [file.stat().st_size for file in files]
    counts = {"bit flips": 1000, "truncations": 200}
    for kind, times in counts.items():
        for number in range(times):
            # Every other one in a small file, which chance would hardly hit.
            file = random_.choice(files) if number % 2 else random_.choices(files, sizes)[0]
            content = file.read_bytes()
            if kind == "bit flips":
                damaged = bytearray(content)
                damaged[random_.randrange(len(content))] ^= 1 << random_.randrange(8)
            else:
                damaged = bytearray(content[: random_.randrange(len(content))])
            file.write_bytes(damaged)
            assert used(folder) == ("step-00000001", 1), f"{kind} in {file.name}"
            file.write_bytes(content)
    clean = 100
    assert [used(folder) for _ in range(clean)] == [("step-00000002", 0)] * clean
    tell(f"checkpoints: {counts} all found before use; no false alarm in {clean} clean loads")


def test_missing_and_swapped_files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    newest = checkpoints_in(folder)[-1]
    aside, found = tmp_path_factory.mktemp("aside"), 0
    names = [file.name for file in newest.iterdir()]
    for name in names:
        (newest / name).rename(aside / name)
        assert used(folder) == ("step-00000001", 1)
        (newest / name).mkdir()  # a folder in the place of a file
        assert used(folder) == ("step-00000001", 1)
        (newest / name).rmdir()
        (aside / name).rename(newest / name)
        found += 2
    for one, other in (("task.safetensors", "optimizer.safetensors"), ("state.json", "manifest.json")):
        for first, second in ((one, other), (other, one)):
            kept = (newest / first).read_bytes()
            shutil.copy(newest / second, newest / first)
            assert used(folder) == ("step-00000001", 1)
            (newest / first).write_bytes(kept)
            found += 1
    # A file of the checkpoint before, in the place of its newer self.
    shutil.copy(folder / "step-00000001" / "state.json", newest / "state.json")
    assert used(folder) == ("step-00000001", 1)
    tell(f"checkpoints: {found + 1} missing and swapped files, all found before use")


@contextlib.contextmanager
def no_room(random_: random.Random, largest: int) -> Iterator[None]:
    """No file gets larger than a random share of the largest one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (random_.randrange(largest), hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextlib.contextmanager
def io_error(random_: random.Random, largest: int) -> Iterator[None]:
    """The disk fails when one of a checkpoint's four files, or their folder, is brought to it."""
    good = random_.randrange(5)
    with failing("fsync", errno.EIO, good):
        yield


@contextlib.contextmanager
def read_only(random_: random.Random, largest: int) -> Iterator[None]:
    """The disk takes nothing from the start, or has become so (as Linux does after errors) before the last move."""
    with failing(random_.choice(["mkdir", "rename"]), errno.EROFS, 0):
        yield


@contextlib.contextmanager
def failing(function: str, number: int, good: int) -> Iterator[None]:
    """A function of `os` fails after some good calls."""
    works, calls = getattr(os, function), itertools.count()

    def fails(*arguments: object, **named: object) -> object:
        if next(calls) >= good:
            raise OSError(number, os.strerror(number))
        return works(*arguments, **named)

    setattr(os, function, fails)
    yield
    setattr(os, function, works)


def test_disks_that_do_not_take_a_checkpoint(folder: Path) -> None:
    random_, times, kinds = random.Random(0), 50, (no_room, io_error, read_only)
    task = Pretrain(toy.config())
    optimizer = build_optimizer(task.student, TrainConfig())
    largest = max(file.stat().st_size for file in (folder / "step-00000002").iterdir())
    said: list[str] = []
    writer = CheckpointWriter(folder, IDENTITY, keep=2, say=said.append, first_step=2)
    for step, kind in zip(range(3, 3 + times), itertools.cycle(kinds)):
        with kind(random_, largest):
            writer.save(step, task.state_dict(), optimizer_tensors(optimizer), {})
            writer.wait()
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
        assert used(folder) == ("step-00000002", 0)
    assert len(said) == times
    assert all("Training continues" in sentence for sentence in said)
    words = [("reported a fault", "I/O error"), ("can only be read", "read-only"), ("", "no room")]
    counts = dict.fromkeys((name for _, name in words), 0)
    for sentence in said:
        counts[next(name for mark, name in words if mark in sentence)] += 1
    tell(f"no checkpoint: {times} of {times} told {counts}, the last good one intact, nothing half-written")


@pytest.mark.parametrize("place", ["file", "/proc"])
def test_places_that_take_nothing(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    said: list[str] = []
    task = Pretrain(toy.config())
    with CheckpointWriter(tmp_path / place / "checkpoints", IDENTITY, keep=2, say=said.append) as writer:
        writer.save(1, task.state_dict(), {}, {})
    assert "could not be written" in said[0]


def short_of_room() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def failing_disk() -> None:
    def fails(folder: Path) -> None:
        if "checkpoints" in folder.parts:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    writing.sync_all = fails


def read_only_folder() -> None:
    mkdir = os.mkdir

    def fails(path: Path, *arguments: object, **named: object) -> None:
        if Path(path).name == "checkpoints":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        mkdir(path, *arguments, **named)

    os.mkdir = fails


@pytest.mark.parametrize("fault", [short_of_room, failing_disk, read_only_folder], ids=lambda f: f.__name__)
def test_a_training_without_checkpoints_goes_on_and_ends_with_a_sentence(
    tmp_path: Path, undisturbed: Path, fault: Callable[[], None]
) -> None:
    process = start(tmp_path / "run", fault)
    process.join(120)
    assert process.exitcode == 1  # a `UserError`: the last checkpoint is not there
    assert not checkpoints_in(tmp_path / "run" / "checkpoints")
    assert len(losses(tmp_path / "run")) == STEPS  # yet it trained to the end
    finish(tmp_path / "run")
    assert_same_run(tmp_path / "run", undisturbed)


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    tmp_path: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    newest = checkpoints_in(run / "checkpoints")[-1]
    content = bytearray((newest / "task.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "task.safetensors").write_bytes(content)
    train(prepare(config(), run), run)
    assert "content of task.safetensors is not what was written" in " ".join(capsys.readouterr().out.split())
    assert_same_run(run, undisturbed)
    verify(newest)
    with pytest.raises(Damaged):
        verify(newest.with_name(f"damaged-{newest.name}"))
