"""The training step of all tasks, and what happens between steps: log, checkpoint, stop."""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGINT

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from albef import distributed
from albef.config import Config, UserError, losses_of
from albef.data.records import Batch
from albef.progress import discard_what_is_gone
from albef.tasks.base import Output, Stage, Task, joined
from albef.train.checkpoint import CheckpointWriter, Facts, optimizer_tensors
from albef.train.device import mark_varying
from albef.train.logging import RunLog, Scalars
from albef.train.optim import lr_at, set_lr, stage_at
from albef.train.sharding import plain, whole
from albef.train.stopping import Asked, Interrupted, Wish

MAX_SKIPPED_IN_A_ROW = 20
TEACHER, STUDENT = 0, 1  # last words of the random keys of a step's parts


def synchronised(task: Task, losses: Sequence[str], fuse: bool) -> nn.Module:
    """The task itself, or with several processes a DDP wrapper that averages its gradients.

    The wrapper looks for parameters without gradient: fusion layers in steps that train ITC alone, and whatever a task
    leaves alone in some steps.
    """
    if not distributed.in_group() or isinstance(task, FSDPModule):
        return task
    with warnings.catch_warnings():
        # `broadcast_buffers` has a successor, but not in all supported versions of torch.
        warnings.simplefilter("ignore", FutureWarning)
        every = task.trains_all and fuse and losses != ("itc",)
        return DistributedDataParallel(task, broadcast_buffers=False, find_unused_parameters=not every)


def averaging(forward: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
    """With several processes, averages gradients only once, at the last part of the batch."""
    if isinstance(forward, FSDPModule):
        forward.set_requires_gradient_sync(last)
    elif isinstance(forward, DistributedDataParallel) and not last:
        return forward.no_sync()
    return contextlib.nullcontext()


def summed(outputs: Sequence[Output]) -> Output:
    """The output of a batch from its parts: losses are added, measures averaged. Keys are of the whole batch anyway."""
    first = outputs[0]
    losses = {name: torch.stack([o.losses[name].detach() for o in outputs]).sum() for name in first.losses}
    measures = {name: torch.stack([o.measures[name] for o in outputs]).mean() for name in first.measures}
    return Output(losses, first.keys, measures)


@dataclass
class Loop:
    """The training loop: the step, and what happens between steps."""

    config: Config
    run_folder: Path
    task: Task
    optimizer: torch.optim.Optimizer
    device: torch.device
    precision: str
    steps_per_epoch: int
    facts: Facts
    log: RunLog | None
    checkpoints: CheckpointWriter
    asked: Asked = field(default_factory=Asked)

    def run(self, stream: Iterator[Batch], first_step: int) -> None:
        """All steps from `first_step` to the last."""
        config, student = self.config.train, self.task.student
        clip_norm = config.clip_norm or math.inf
        seconds_before = float(self.facts["seconds"])
        started, skipped_in_a_row = time.perf_counter(), 0
        window_started, window_step = started, first_step
        fuse: bool | None = None
        losses = losses_of(self.config.task.name, self.config.task.losses)
        with self.asked:
            for step in range(first_step, config.steps):
                batch = next(stream)
                set_lr(self.optimizer, lr_at(step, config, self.steps_per_epoch))
                stage = stage_at(step, self.config, self.steps_per_epoch)
                if stage.fuse != fuse:
                    forward = synchronised(self.task, losses, stage.fuse)
                    fuse = stage.fuse
                output = self.backward(forward, batch, step, stage)
                grad_norm = plain(clip_grad_norm_(student.parameters(), clip_norm))
                scalars, good, wish = self.everywhere(output, grad_norm)
                if good:
                    self.optimizer.step()
                    self.task.update(output)
                    skipped_in_a_row = 0
                else:
                    self.facts["skipped"] = int(self.facts["skipped"]) + 1
                    skipped_in_a_row += 1
                self.optimizer.zero_grad()

                now = time.perf_counter()
                self.facts["seconds"] = seconds_before + now - started
                last = step + 1 == config.steps
                if self.log is not None:
                    self.log.advance(step)
                    if step % config.log_every_steps == 0 or last:
                        rate = (step + 1 - window_step) * config.batch_size / (now - window_started)
                        window_started, window_step = now, step + 1
                        self.log.write(step, scalars | self.progress(step, rate))
                if skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                    raise UserError(
                        f"Step {step}: loss or gradient was NaN or infinite {MAX_SKIPPED_IN_A_ROW} times in a row. "
                        f"The last good checkpoint is in {self.run_folder / 'checkpoints'}. A lower --train.lr or "
                        f"--train.precision=fp32 may help."
                    )
                due = (step + 1) % config.checkpoint_every_steps == 0
                if (due and not skipped_in_a_row) or last or wish:
                    self.save(step + 1)
                if wish == Wish.STOP:
                    break
            self.finish(step + 1)

    def finish(self, step: int) -> None:
        """Waits for the last checkpoint. Raises `Interrupted` if training stopped early."""
        self.checkpoints.wait()
        steps, failure, number = self.config.train.steps, self.checkpoints.failure, self.asked.stop
        if failure and not number:
            raise UserError(
                f"The last checkpoint could not be written to {self.checkpoints.folder} ({failure}). "
                f"Fix that, then run the same command again: it continues from the checkpoint before."
            )
        if number or step < steps:
            saved = (
                f"but the checkpoint could not be written ({failure})"
                if failure
                else "the checkpoint is saved"
            )
            discard_what_is_gone()  # the terminal may have closed
            raise Interrupted(f"Stopped after step {step} of {steps}: {saved}.", number or SIGINT)

    def backward(self, forward: nn.Module, batch: Batch, step: int, stage: Stage) -> Output:
        """Forward and backward of this process's batch. Returns its losses; gradients are in the parameters.

        The teacher sees all parts of the batch first, so that each part is contrasted with the whole batch. Dropout and
        negatives of a part depend on its place in the global batch, not on the process that computes it.
        """
        config = self.config.train
        size = config.micro_batch_size or len(batch)
        # Split on the host: on a GPU it would have to wait for the number of masked tokens in a part.
        moved = (part.to(self.device, non_blocking=True) for part in batch.split(size))
        mean, std = self.config.model.mean, self.config.model.std
        here = [part.normalised(mean, std) for part in moved]
        parts = list(enumerate(here, distributed.rank() * -(-len(batch) // size)))
        with self.autocast(), self.teaching():
            said = []
            for number, part in parts:
                distributed.seed(config.seed, step, number, TEACHER)
                if config.compile:
                    mark_varying(part.tensors())
                said.append(self.task.prepare(part, stage))
                if config.compile:
                    mark_varying(said[-1]._asdict())
        outputs: list[Output] = []
        for (number, part), targets in zip(parts, joined(said, self.config.task.gather_batch), strict=True):
            distributed.seed(config.seed, step, number, STUDENT)
            with averaging(forward, last=len(outputs) + 1 == len(parts)):
                with self.autocast():
                    output: Output = forward(part, targets, stage)
                torch.stack(list(output.losses.values())).sum().backward()
            outputs.append(output)
        return summed(outputs)

    def teaching(self) -> contextlib.AbstractContextManager[None]:
        """Within it the teacher's weights are cast once. Slices are cast when they are put together."""
        teacher = self.task.teacher
        if teacher is None or isinstance(self.task, FSDPModule):
            return contextlib.nullcontext()
        return teacher.cast_once()

    def autocast(self) -> torch.autocast:
        """A context with the run's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def everywhere(self, output: Output, grad_norm: Tensor) -> tuple[Scalars, bool, Wish]:
        """The step's figures over all processes, whether they are finite, and what signals asked of any process.

        This is the only synchronisation with the device in a step.
        """
        named = {**output.losses, **output.measures, "grad_norm": grad_norm}
        asked = [torch.full_like(grad_norm, float(one)) for one in (self.asked.stop > 0, self.asked.save)]
        *values, stop, save = distributed.all_mean(torch.stack([*named.values(), *asked])).tolist()
        scalars = dict(zip(named, values, strict=True))
        good = all(math.isfinite(scalars[name]) for name in (*output.losses, "grad_norm"))
        if save:
            self.asked.save = False
        return scalars, good, Wish.STOP if stop else Wish.SAVE if save else Wish.NOTHING

    def progress(self, step: int, rate: float) -> Scalars:
        """The scheduled values of a logged step, and its speed."""
        stage = stage_at(step, self.config, self.steps_per_epoch)
        return {
            "lr": lr_at(step, self.config.train, self.steps_per_epoch),
            "alpha": stage.alpha,
            "hardness": stage.hardness,
            "pairs": (step + 1) * self.config.train.batch_size,
            "seconds": float(self.facts["seconds"]),
            "pairs_per_second": rate,
            "skipped": int(self.facts["skipped"]),
        }

    def save(self, step: int) -> None:
        """Begins to write a checkpoint after `step` steps. All processes must call it, as tensors may be sharded."""
        task, optimizer = whole(self.task.state_dict()), whole(optimizer_tensors(self.optimizer))
        if distributed.rank() == 0:
            self.checkpoints.save(step, task, optimizer, self.facts)
