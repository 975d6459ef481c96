"""A checkpoint is whole or not there, and nothing is read from a damaged one."""

import dataclasses
import json
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import toy
from albef.config import TrainConfig, UserError
from albef.manifest import Damaged, read_manifest, verify
from albef.run import prepare
from albef.tasks.pretrain import Pretrain
from albef.train.checkpoint import (
    CheckpointWriter,
    checkpoint_bytes,
    checkpoints_in,
    load_checkpoint,
    load_optimizer,
    load_task,
    newest_checkpoint,
    optimizer_tensors,
    room_needed,
    superfluous,
)
from albef.train.loop import train
from albef.train.optim import build_optimizer

FACTS = {"precision": "fp32", "seconds": 1.5}
IDENTITY = {"config": {"train.seed": 42}, "data": "pictograms"}


def save(
    writer: CheckpointWriter, step: int, task: Pretrain, optimizer: torch.optim.Optimizer, facts: dict
) -> None:
    writer.save(step, task.state_dict(), optimizer_tensors(optimizer), facts)


def task_and_optimizer() -> tuple[Pretrain, torch.optim.AdamW]:
    task = Pretrain(toy.config())
    optimizer = build_optimizer(task.student, TrainConfig())
    task.student.itm_head.weight.sum().backward()
    optimizer.step()
    return task, optimizer


def saved(folder: Path, *steps: int, **settings: int) -> tuple[Pretrain, torch.optim.AdamW]:
    task, optimizer = task_and_optimizer()
    with CheckpointWriter(folder, IDENTITY, **{"keep": 2, **settings}) as writer:
        for step in steps:
            save(writer, step, task, optimizer, FACTS)
    assert not writer.failure
    return task, optimizer


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_everything_comes_back(tmp_path: Path) -> None:
    task, optimizer = saved(tmp_path, 7)
    other, other_optimizer = task_and_optimizer()
    facts = load_checkpoint(tmp_path / "step-00000007", other, other_optimizer)
    assert facts.items() >= {"step": 7, **FACTS, "torch": torch.__version__}.items()
    for name, tensor in task.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    one, two = (o.state_dict()["state"] for o in (optimizer, other_optimizer))
    assert one.keys() == two.keys()
    for number in one:
        for quantity in one[number]:
            assert torch.equal(one[number][quantity], two[number][quantity])
    read, facts = load_task(tmp_path / "step-00000007", toy.config())
    assert facts["step"] == 7
    assert not read.training


def test_moments_are_kept_by_name_and_not_by_the_order_of_modules(tmp_path: Path) -> None:
    config = toy.config(train=TrainConfig(optimizer="muon"))
    task = Pretrain(config)
    optimizer = build_optimizer(task.student, config.train)
    for number, parameter in enumerate(task.student.parameters()):
        parameter.grad = torch.full_like(parameter, float(number))
    optimizer.step()
    with CheckpointWriter(tmp_path, IDENTITY, keep=1) as writer:
        save(writer, 1, task, optimizer, FACTS)

    other = Pretrain(config)
    for module in (other.student, *other.student.fusion_encoder.layers):
        module._modules = dict(reversed(module._modules.items()))
    others = build_optimizer(other.student, config.train)
    assert list(other.state_dict()) != list(task.state_dict())
    load_checkpoint(tmp_path / "step-00000001", other, others)
    parameters, found = dict(other.student.named_parameters()), 0
    for name, parameter in task.student.named_parameters():
        for quantity, value in optimizer.state[parameter].items():
            assert torch.equal(value, others.state[parameters[name]][quantity]), (name, quantity)
            found += 1
    assert found > 100


def test_moments_of_another_shape_are_refused(tmp_path: Path) -> None:
    _, optimizer = saved(tmp_path, 1)
    tensors = optimizer_tensors(optimizer)
    tensors["itm_head.weight.exp_avg"] = torch.zeros(3)
    with pytest.raises(ValueError, match=r"itm_head\.weight\.exp_avg is \[3\] instead of \[2, 16\]"):
        load_optimizer(optimizer, tensors)


def test_what_is_saved_is_what_was_there_when_save_was_called(tmp_path: Path) -> None:
    task, optimizer = task_and_optimizer()
    before = {name: tensor.clone() for name, tensor in task.state_dict().items()}
    with CheckpointWriter(tmp_path, IDENTITY, keep=1) as writer:
        save(writer, 1, task, optimizer, FACTS)
        with torch.no_grad():
            for parameter in task.parameters():
                parameter.zero_()
    read, _ = load_task(tmp_path / "step-00000001", toy.config())
    assert all(torch.equal(tensor, before[name]) for name, tensor in read.state_dict().items())


def test_a_manifest_names_its_parent_and_the_run(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    first, second = (read_manifest(path) for path in checkpoints_in(tmp_path))
    assert first.facts == {"step": 1, "parent": None, **IDENTITY}
    assert second.facts["parent"] == first.seal


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"keep": 2}, [6, 7]),
        ({"keep": 1, "keep_every_steps": 3}, [3, 6, 7]),
        ({"keep": 9}, list(range(1, 8))),
    ],
)
def test_the_last_ones_and_every_so_many_are_kept(tmp_path: Path, settings: dict, kept: list[int]) -> None:
    saved(tmp_path, *range(1, 8), **settings)
    assert names(tmp_path) == [f"step-{step:08d}" for step in kept]


def test_none_is_superfluous_of_few() -> None:
    paths = [Path(f"step-{step:08d}") for step in (1, 2)]
    assert superfluous(paths, 2, 0) == []
    assert superfluous([], 2, 0) == []


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file may grow beyond 4 KB: writing fails as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_save_that_fails_is_told_and_leaves_the_last_one(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    task, optimizer = saved(tmp_path, 1)
    said: list[str] = []
    writer = CheckpointWriter(tmp_path, IDENTITY, keep=1, say=said.append, first_step=1)
    request.getfixturevalue("full_disk")
    save(writer, 2, task, optimizer, FACTS)
    writer.wait()
    assert "after step 2 could not be written" in said[0]
    assert "may not grow that large" in writer.failure
    assert names(tmp_path) == ["step-00000001"]
    verify(tmp_path / "step-00000001")


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    for name in (".writing-00000003", ".removing-step-00000001"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "task.safetensors").write_bytes(b"half")
    saved(tmp_path, 4)
    assert names(tmp_path) == ["step-00000004"]


@pytest.mark.parametrize("file", ["task.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["bit", "half", "gone"])
def test_a_damaged_one_is_told_and_the_one_before_it_is_used(tmp_path: Path, file: str, damage: str) -> None:
    task, optimizer = saved(tmp_path, 1, 2)
    path = tmp_path / "step-00000002" / file
    data = bytearray(path.read_bytes())
    if damage == "bit":
        data[len(data) // 3] ^= 4
    path.write_bytes(data[: len(data) // 2] if damage == "half" else data)
    if damage == "gone":
        path.unlink()
    with pytest.raises(Damaged, match=file):
        load_task(tmp_path / "step-00000002", toy.config())
    said: list[str] = []
    found = newest_checkpoint(tmp_path, said.append)
    assert found is not None
    assert found[0].name == "step-00000001"
    assert found[1].facts["step"] == 1
    assert len(said) == 1
    assert file in said[0]
    # Going on from step 1 puts it aside, so that it is neither counted nor kept as one of the last.
    with CheckpointWriter(tmp_path, IDENTITY, keep=1, first_step=1) as writer:
        save(writer, 3, task, optimizer, FACTS)
    assert names(tmp_path) == ["damaged-step-00000002", "step-00000003"]


def test_swapped_files_are_noticed(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    one, two = (path / "task.safetensors" for path in checkpoints_in(tmp_path))
    two.write_bytes(one.read_bytes()[:-1] + b"?")
    with pytest.raises(Damaged, match=r"content of task\.safetensors"):
        verify(two.parent)


def test_when_all_are_damaged_nothing_begins_anew(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    for path in checkpoints_in(tmp_path):
        (path / "state.json").write_text("{}")
    with pytest.raises(UserError, match="all 2 checkpoints are damaged"):
        newest_checkpoint(tmp_path, lambda text: None)
    assert newest_checkpoint(tmp_path / "none") is None


def test_a_checkpoint_of_another_model_gives_a_sentence(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    other = Pretrain(toy.config())
    del other.queue
    with pytest.raises(UserError, match="does not fit this run"):
        load_checkpoint(tmp_path / "step-00000001", other, build_optimizer(other.student, TrainConfig()))


def test_versions_are_in_every_checkpoint(tmp_path: Path) -> None:
    saved(tmp_path, 1)
    state = json.loads((tmp_path / "step-00000001" / "state.json").read_text())
    assert {"albef", "python", "torch", "numpy", "safetensors"} <= state.keys()


def test_copies_of_checkpoints_are_left_alone(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    shutil.copytree(tmp_path / "step-00000002", tmp_path / "step-00000002-backup")
    assert newest_checkpoint(tmp_path)[0].name == "step-00000002"
    saved(tmp_path, 3, first_step=2)
    assert names(tmp_path) == ["step-00000002", "step-00000002-backup", "step-00000003"]


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for name in ("step-100000000", "step-99999999"):
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints_in(tmp_path)] == ["step-99999999", "step-100000000"]


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "bertadam"])
def test_the_room_that_a_training_takes_is_known_before_it(tmp_path: Path, optimizer: str) -> None:
    train = TrainConfig(steps=7, checkpoint_every_steps=2, keep_checkpoints=1, optimizer=optimizer)
    task = Pretrain(toy.config())
    moving = build_optimizer(task.student, train)
    known = checkpoint_bytes(task, moving)
    room = room_needed(tmp_path, task, moving, train, 0)
    for parameter in task.student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    moving.step()
    with CheckpointWriter(tmp_path, IDENTITY, keep=9) as writer:
        for step in (2, 4):
            save(writer, step, task, moving, FACTS)
    files = [file for file in tmp_path.rglob("*.safetensors") if "00002" in str(file)]
    written = sum(tensor.nbytes for file in files for tensor in load_file(file).values())
    assert known == pytest.approx(written, rel=0.01)  # the optimizer's counts of steps come on top
    model = sum(tensor.nbytes for tensor in task.student.state_dict().values())
    assert room == 2 * known + model  # the one that is kept, and the one that is to follow it
    assert room_needed(tmp_path, task, moving, train, 4) == model  # both are there
    often = dataclasses.replace(train, keep_every_steps=2)
    assert room_needed(tmp_path / "new", task, moving, often, 0) == 4 * known + model  # all four are kept


def test_a_training_that_finds_no_room_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = prepare(toy.config(), tmp_path / "run")
    monkeypatch.setattr("albef.disk.free_bytes", lambda place: 10_000)
    monkeypatch.setattr("albef.train.loop.Loop.run", lambda *_: pytest.fail("the training has begun"))
    with pytest.raises(UserError, match=r"checkpoints: needs .* but its disk has only 10\.0 kB free"):
        train(config, tmp_path / "run")
