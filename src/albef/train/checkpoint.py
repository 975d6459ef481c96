"""Checkpoints: everything that a run needs to go on, as safetensors and JSON, written whole or not at all.

They are written beside the training, and nothing is read from one before its manifest has been compared.
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
from albef.tasks.base import Task
from albef.tasks.build import build_task
from albef.writing import whole_folder

TASK_FILE, OPTIMIZER_FILE, STATE_FILE = "task.safetensors", "optimizer.safetensors", "state.json"

Facts = dict[str, str | int | float]


class CheckpointWriter:
    """Writes the checkpoints of a run beside its training, one at a time, and removes those that nobody needs.

    What goes into a checkpoint is copied before `save` returns; the disk is then waited for by the next `save`
    only, and at the end of the `with` block. A checkpoint that can't be written (full disk, for instance) is
    reported through `say`, and the training goes on with the one before it. `identity` is noted in every manifest:
    configuration and data, by which a resumed run is known to be the same.
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
        self.failure = ""  # why the newest checkpoint is not there; empty when it is
        self.thread: threading.Thread | None = None
        if distributed.rank() == 0:
            with contextlib.suppress(
                OSError
            ):  # what goes wrong here goes wrong in writing too, and is told then
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
        """Takes a copy of everything after `step` steps and begins to write it."""
        self.wait()
        tensors = {TASK_FILE: copied(task), OPTIMIZER_FILE: copied(optimizer)}
        state = {"step": step, **facts, **versions()}
        # A process that is stopped need not wait for the disk: a half-written checkpoint is never visible.
        self.thread = threading.Thread(target=self._write, args=(step, tensors, state), daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Returns when the last checkpoint is on disk, or has failed to get there."""
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
                f"Training goes on; the checkpoint before it is what there is."
            )

    def _tidy(self, first_step: int) -> None:
        """Removes what a killed process left, and puts aside damaged checkpoints that were not gone on from."""
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
    """Writes a checkpoint whole."""
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
    """What a checkpoint takes on the disk: everything of the task, and the moments of the optimizer."""
    moments = sum(
        parameter.nbytes * (1 if group.get("muon") else 2)
        for group in optimizer.param_groups
        for parameter in group["params"]
    )
    return moments + sum(tensor.nbytes for tensor in task.state_dict().values())


def room_needed(
    folder: Path, task: Task, optimizer: torch.optim.Optimizer, train: TrainConfig, first_step: int
) -> int:
    """How many bytes a training from that step on will add to what is there: its checkpoints, and its model at the end.

    One more than those that are kept is there while the oldest is still to go.
    """
    writes = -(-(train.steps - first_step) // train.checkpoint_every_steps)
    there = len(checkpoints_in(folder))
    more = max(0, min(there + writes, train.keep_checkpoints + 1) - there)
    if train.keep_every_steps:
        more += train.steps // train.keep_every_steps - first_step // train.keep_every_steps
    model = sum(tensor.nbytes for tensor in task.student.state_dict().values())
    return min(more, writes) * checkpoint_bytes(task, optimizer) + model


def remove(checkpoint: Path) -> None:
    """Removes a checkpoint so that half of it is never to be seen."""
    hidden = checkpoint.with_name(f".removing-{checkpoint.name}")
    shutil.rmtree(hidden, ignore_errors=True)
    checkpoint.rename(hidden)
    shutil.rmtree(hidden, ignore_errors=True)


def checkpoints_in(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first; copies under other names are not looked at."""
    found = (path for path in folder.glob("step-*") if re.fullmatch(r"step-\d+", path.name))
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """After how many steps a checkpoint was written."""
    return int(checkpoint.name.removeprefix("step-"))


def superfluous(checkpoints: list[Path], keep: int, keep_every_steps: int) -> list[Path]:
    """The checkpoints, of a list oldest first, that are neither among the last `keep` nor at a multiple of steps."""
    return [path for path in checkpoints[:-keep] if not keep_every_steps or step_of(path) % keep_every_steps]


def newest_checkpoint(folder: Path, say: Callable[[str], None] = print) -> tuple[Path, Manifest] | None:
    """The newest checkpoint that is as it was written, and its manifest; None when there is no checkpoint at all.

    Damaged ones are reported and passed over. Raises `UserError` when all are damaged: a run must not begin anew
    unasked.
    """
    checkpoints = checkpoints_in(folder)
    for checkpoint in reversed(checkpoints):
        try:
            return checkpoint, verify(checkpoint)
        except Damaged as error:
            say(f"{error} This checkpoint is damaged and not used.")
    if checkpoints:
        raise UserError(
            f"{folder}: all {len(checkpoints)} checkpoints are damaged. Restore one, or delete the folder to "
            f"begin anew."
        )
    return None


def load_checkpoint(folder: Path, task: Task, optimizer: torch.optim.Optimizer) -> Facts:
    """The facts stored beside the weights, which are now in `task` and `optimizer`.

    The files are taken as they are: `newest_checkpoint` has verified them.
    """
    reading.set(folder)
    with readable(folder):
        task.load_state_dict(load_file(folder / TASK_FILE))
        load_optimizer(optimizer, load_file(folder / OPTIMIZER_FILE))
        facts: Facts = json.loads((folder / STATE_FILE).read_text("utf-8"))
    return facts


def load_task(folder: Path, config: Config) -> tuple[Task, Facts]:
    """The task of a checkpoint, verified, for evaluation, and the facts stored beside it."""
    verify(folder)
    task = build_task(config)
    with readable(folder):
        task.load_state_dict(load_file(folder / TASK_FILE))
        facts: Facts = json.loads((folder / STATE_FILE).read_text("utf-8"))
    return task.eval(), facts


@contextlib.contextmanager
def readable(folder: Path) -> Iterator[None]:
    """Turns what can go wrong in reading a checkpoint into a sentence."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError, ValueError, LookupError) as error:
        raise UserError(
            f"{folder}: this checkpoint doesn't fit this run ({plain(error)}). Go on with the configuration that "
            f"it was written by, or begin anew in another folder."
        ) from error


def versions() -> dict[str, str]:
    """The libraries that a step's numbers depend on."""
    return {
        "albef": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "safetensors": safetensors.__version__,
    }


def copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as they are now, in memory of their own on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as flat names `<parameter's name>.<quantity>`."""
    return {
        f"{name}.{quantity}": value
        for name, parameter in by_name(optimizer).items()
        for quantity, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Puts the state back into an optimizer over parameters of the same names, in whatever order.

    Older checkpoints have the numbers of the parameters for names. Raises `ValueError` for another parameter's state.
    """
    parameters = by_name(optimizer)
    names = list(parameters)
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, quantity = key.rpartition(".")
        number = int(name) if name.isdecimal() else names.index(name)
        shape = parameters[names[number]].shape
        if tensor.shape not in (shape, torch.Size()):  # such as the step, which has none
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
