"""A checkpoint is whole or not there."""

from pathlib import Path

import pytest
import torch

import toy
from albef.config import TrainConfig, UserError
from albef.tasks.pretrain import Pretrain
from albef.train import checkpoint as checkpoint_module
from albef.train.checkpoint import checkpoints_in, load_checkpoint, load_task, save_checkpoint
from albef.train.optim import build_optimizer

FACTS = {"precision": "fp32", "seconds": 1.5}


def task_and_optimizer() -> tuple[Pretrain, torch.optim.AdamW]:
    task = Pretrain(toy.config())
    optimizer = build_optimizer(task.student, TrainConfig())
    task.student.itm_head.weight.sum().backward()
    optimizer.step()
    return task, optimizer


def test_everything_comes_back(tmp_path: Path) -> None:
    task, optimizer = task_and_optimizer()
    save_checkpoint(tmp_path, 7, task, optimizer, FACTS, keep=2)
    other, other_optimizer = task_and_optimizer()
    assert load_checkpoint(tmp_path / "step-00000007", other, other_optimizer) == {"step": 7, **FACTS}
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


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    task, optimizer = task_and_optimizer()
    for step in range(1, 6):
        save_checkpoint(tmp_path, step, task, optimizer, FACTS, keep=2)
    assert [path.name for path in checkpoints_in(tmp_path)] == ["step-00000004", "step-00000005"]


def test_a_save_that_dies_leaves_the_last_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, optimizer = task_and_optimizer()
    save_checkpoint(tmp_path, 1, task, optimizer, FACTS, keep=2)

    def full_disk(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint_module, "optimizer_tensors", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, 2, task, optimizer, FACTS, keep=2)
    assert [path.name for path in checkpoints_in(tmp_path)] == ["step-00000001"]
    monkeypatch.undo()
    save_checkpoint(tmp_path, 2, task, optimizer, FACTS, keep=2)
    assert len(checkpoints_in(tmp_path)) == 2
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("file", ["task.safetensors", "optimizer.safetensors", "state.json"])
def test_a_damaged_one_gives_a_sentence(tmp_path: Path, file: str) -> None:
    task, optimizer = task_and_optimizer()
    folder = save_checkpoint(tmp_path, 1, task, optimizer, FACTS, keep=2)
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"step-00000001: this checkpoint can't be read"):
        load_checkpoint(folder, task, optimizer)
