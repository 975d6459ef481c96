"""Checkpoints: everything that a run needs to go on, as safetensors and JSON, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from albef import distributed
from albef.config import Config, UserError
from albef.tasks.base import Task
from albef.tasks.build import build_task
from albef.train.sharding import whole

Facts = dict[str, str | int | float]


def save_checkpoint(
    folder: Path, step: int, task: Task, optimizer: torch.optim.Optimizer, facts: Facts, keep: int
) -> Path:
    """The folder of the new checkpoint, complete on disk; of older ones the last `keep` − 1 stay.

    Among several processes all have to call this, since each holds a part of what is sharded; the first one writes.
    """
    final = folder / f"step-{step:08d}"
    task_tensors, moments = whole(task.state_dict()), whole(optimizer_tensors(optimizer))
    if distributed.rank() > 0:
        return final
    temporary = folder / f".writing-{step:08d}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(
        {name: tensor.contiguous() for name, tensor in task_tensors.items()},
        temporary / "task.safetensors",
    )
    save_file(moments, temporary / "optimizer.safetensors")
    (temporary / "state.json").write_text(json.dumps({"step": step, **facts}, indent=1))
    for file in temporary.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    shutil.rmtree(final, ignore_errors=True)
    temporary.rename(final)
    for old in checkpoints_in(folder)[:-keep]:
        shutil.rmtree(old)
    return final


def checkpoints_in(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(folder.glob("step-*"))


def load_checkpoint(folder: Path, task: Task, optimizer: torch.optim.Optimizer) -> Facts:
    """The facts stored beside the weights, which are now in `task` and `optimizer`."""
    with readable(folder):
        task.load_state_dict(load_file(folder / "task.safetensors"))
        load_optimizer(optimizer, load_file(folder / "optimizer.safetensors"))
        facts: Facts = json.loads((folder / "state.json").read_text())
    return facts


def load_task(folder: Path, config: Config) -> tuple[Task, Facts]:
    """The task of a checkpoint, for evaluation, and the facts stored beside it."""
    task = build_task(config)
    with readable(folder):
        task.load_state_dict(load_file(folder / "task.safetensors"))
        facts: Facts = json.loads((folder / "state.json").read_text())
    return task.eval(), facts


@contextlib.contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turns what can go wrong in reading a checkpoint into a sentence."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{folder}: this checkpoint can't be read ({error}). Delete it to go on from the one before it."
        ) from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat names `<parameter number>.<quantity>`."""
    state = optimizer.state_dict()["state"]
    return {f"{number}.{name}": value for number, values in state.items() for name, value in values.items()}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Puts the state back into an optimizer over the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, quantity = name.split(".")
        state.setdefault(int(number), {})[quantity] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
