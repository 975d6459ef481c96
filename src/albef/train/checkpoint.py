"""Checkpoints: everything that a run needs to continue, as safetensors and JSON, written whole or not at all.

A thread writes them while training continues. Before anything is read, the files are compared with their manifest.
"""

from __future__ import annotations

import contextlib
import json
import platform
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from albef import __version__, distributed
from albef.config import Config, TrainConfig, UserError
from albef.errors import reading
from albef.manifest import Damaged, Manifest, plain, read_manifest, verify
from albef.systems import build_task
from albef.tasks.base import Task
from albef.writing import whole_folder

TASK_FILE, OPTIMIZER_FILE, STATE_FILE = "task.safetensors", "optimizer.safetensors", "state.json"

Facts = dict[str, str | int | float]


class CheckpointWriter:
    """Writes the checkpoints of a run in a thread, one at a time, and removes old ones.

    `save` returns as soon as it has copied the state. Only the next `save` and the end of the `with` block wait for
    the disk. If a checkpoint cannot be written (full disk, for example), this is reported through `say`, and training
    continues. `identity` (configuration and data) goes into every manifest, to recognise the run when it is resumed.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        keep: int,
        keep_every_steps: int = 0,
        say: Callable[[str], None] = print,
        first_step: int = 0,
    ) -> None:
        self.folder, self.identity, self.say = folder, identity, say
        self.keep, self.keep_every_steps = keep, keep_every_steps
        self.failure = ""  # why the newest checkpoint could not be written; empty if it was
        self.thread: threading.Thread | None = None
        if distributed.rank() == 0:
            with contextlib.suppress(OSError):  # an error here also occurs in writing, and is reported then
                self._tidy(first_step)

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not KeyboardInterrupt:  # the second Ctrl-C: stop at once
            self.wait()

    def save(
        self, step: int, task: Mapping[str, Tensor], optimizer: Mapping[str, Tensor], facts: Facts
    ) -> None:
        """Copies the state after `step` steps and begins to write it."""
        self.wait()
        tensors = {TASK_FILE: copied(task), OPTIMIZER_FILE: copied(optimizer)}
        state = {"step": step, **facts, **versions()}
        # A daemon, so that stopping need not wait for the disk: a half-written checkpoint is never visible.
        self.thread = threading.Thread(target=self._write, args=(step, tensors, state), daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Waits until the last checkpoint is on disk, or has failed."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None

    def _write(self, step: int, tensors: Mapping[str, dict[str, Tensor]], state: Facts) -> None:
        try:
            write_checkpoint(self.folder, step, tensors, state, self.identity)
            self.failure = ""
            for old in superfluous(checkpoints_in(self.folder), self.keep, self.keep_every_steps):
                remove(old)
        except (UserError, OSError, SafetensorError, RuntimeError, MemoryError) as error:
            self.failure = plain(error)
            self.say(
                f"The checkpoint after step {step} could not be written ({self.failure}). "
                f"Training continues, and the checkpoint before it is kept."
            )

    def _tidy(self, first_step: int) -> None:
        """Removes unfinished files of a killed process, and moves damaged checkpoints aside."""
        for left in (*self.folder.glob(".*writing*"), *self.folder.glob(".removing-*")):
            shutil.rmtree(left)
        for path in checkpoints_in(self.folder):
            if step_of(path) > first_step:
                aside = path.with_name(f"damaged-{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                path.rename(aside)


def write_checkpoint(
    folder: Path,
    step: int,
    tensors: Mapping[str, dict[str, Tensor]],
    state: Facts,
    identity: Mapping[str, Any],
) -> None:
    """Writes a checkpoint, whole or not at all."""
    before = checkpoints_in(folder)
    parent = None
    with contextlib.suppress(Damaged):
        parent = read_manifest(before[-1]).seal if before else None
    facts = {"step": step, "parent": parent, **identity}
    known = (*tensors, STATE_FILE)
    with whole_folder(folder / f"step-{step:08d}", known, "xxh3-128", facts) as temporary:
        for name, content in tensors.items():
            save_file(content, temporary / name)
        (temporary / STATE_FILE).write_text(json.dumps(state, indent=1), "utf-8")


def checkpoint_bytes(task: Task, optimizer: torch.optim.Optimizer) -> int:
    """Bytes of a checkpoint on disk: the whole task and the optimizer's moments."""
    moments = sum(
        parameter.nbytes * (1 if group.get("muon") else 2)
        for group in optimizer.param_groups
        for parameter in group["params"]
    )
    return moments + sum(tensor.nbytes for tensor in task.state_dict().values())


def room_needed(
    folder: Path, task: Task, optimizer: torch.optim.Optimizer, train: TrainConfig, first_step: int
) -> int:
    """Bytes that a training from this step on will add on disk: its checkpoints, and its final model.

    There is one checkpoint more than are kept, since the oldest is removed after the newest is written.
    """
    writes = -(-(train.steps - first_step) // train.checkpoint_every_steps)
    there = len(checkpoints_in(folder))
    more = max(0, min(there + writes, train.keep_checkpoints + 1) - there)
    if train.keep_every_steps:
        more += train.steps // train.keep_every_steps - first_step // train.keep_every_steps
    model = sum(tensor.nbytes for tensor in task.student.state_dict().values())
    return min(more, writes) * checkpoint_bytes(task, optimizer) + model


def remove(checkpoint: Path) -> None:
    """Removes a checkpoint. Half of one is never visible."""
    hidden = checkpoint.with_name(f".removing-{checkpoint.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    checkpoint.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def checkpoints_in(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first. Copies under other names are ignored."""
    found = (path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name))
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The number of steps after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


def superfluous(checkpoints: list[Path], keep: int, keep_every_steps: int) -> list[Path]:
    """The checkpoints to remove: neither among the last `keep` nor at a multiple of `keep_every` steps."""
    return [path for path in checkpoints[:-keep] if not keep_every_steps or step_of(path) % keep_every_steps]


def newest_checkpoint(folder: Path, say: Callable[[str], None] = print) -> tuple[Path, Manifest] | None:
    """The newest undamaged checkpoint and its manifest. None if there is no checkpoint at all.

    Damaged ones are reported and skipped. Raises `UserError` if all are damaged, since a run must not silently start
    again.
    """
    checkpoints = checkpoints_in(folder)
    for checkpoint in reversed(checkpoints):
        try:
            return checkpoint, verify(checkpoint)
        except Damaged as error:
            say(f"{error} This checkpoint is damaged and was skipped.")
    if checkpoints:
        raise UserError(
            f"{folder}: all {len(checkpoints)} checkpoints are damaged. Restore one from a backup, or delete the folder "
            f"to start again."
        )
    return None


def load_checkpoint(folder: Path, task: Task, optimizer: torch.optim.Optimizer) -> Facts:
    """Loads a checkpoint into `task` and `optimizer`, and returns the facts stored with it.

    Does not verify the files again: `newest_checkpoint` has done that.
    """
    reading.set(folder)
    with readable(folder):
        task.load_state_dict(load_file(folder / TASK_FILE))
        load_optimizer(optimizer, load_file(folder / OPTIMIZER_FILE))
        facts: Facts = json.loads((folder / STATE_FILE).read_text("utf-8"))
    return facts


def load_task(folder: Path, config: Config) -> tuple[Task, Facts]:
    """The task of a verified checkpoint, for evaluation, and the facts stored with it."""
    verify(folder)
    task = build_task(config)
    with readable(folder):
        task.load_state_dict(load_file(folder / TASK_FILE))
        facts: Facts = json.loads((folder / STATE_FILE).read_text("utf-8"))
    return task.eval(), facts


@contextlib.contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turns errors of reading a checkpoint into a `UserError`."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, ValueError, LookupError) as error:
        raise UserError(
            f"{folder}: this checkpoint does not fit this run ({plain(error)}). Continue with the configuration that "
            f"wrote it, or start again in another folder."
        ) from error


def versions() -> dict[str, str]:
    """The versions that the numbers of a step depend on."""
    return {
        "albef": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
    }


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state under flat names `<parameter>.<quantity>`."""
    return {
        f"{name}.{quantity}": value
        for name, parameter in by_name(optimizer).items()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Loads the state into an optimizer with parameters of the same names, in any order.

    Older checkpoints use parameter numbers as names. Raises `ValueError` if a state does not fit its parameter.
    """
    parameters = by_name(optimizer)
    names = list(parameters)
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, quantity = key.rpartition(".")
        number = int(name) if name.isdecimal() else names.index(name)
        shape = parameters[names[number]].shape
        if tensor.shape not in (shape, torch.Size()):  # a scalar, such as the step
            raise ValueError(f"{key} is {list(tensor.shape)} instead of {list(shape)}")
        state.setdefault(number, {})[quantity] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def by_name(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's parameters, in the order of their groups."""
    groups = optimizer.param_groups
    return {
        name: parameter
        for group in groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }
