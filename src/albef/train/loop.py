"""The training loop of every task: step, log, checkpoint, resume."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from albef import distributed
from albef.config import Config, UserError
from albef.data.loader import ExampleSet, batches
from albef.data.records import Batch
from albef.data.sources import open_source
from albef.data.text import Tokenizer
from albef.engine import choose_device
from albef.model import kernels
from albef.tasks.base import Output, Task
from albef.tasks.build import build_task
from albef.train.checkpoint import (
    CheckpointWriter,
    Facts,
    load_checkpoint,
    newest_checkpoint,
    optimizer_tensors,
)
from albef.train.initial import start_from
from albef.train.initial_encoders import start_from_encoders
from albef.train.kernel_choice import Choice, choose, described
from albef.train.logging import RunLog
from albef.train.optim import build_optimizer, lr_at, set_lr, stage_at
from albef.train.resume import identity

MAX_SKIPPED_IN_A_ROW = 20
GROUP_TIMEOUT = timedelta(minutes=10)  # how long a process waits for another one that doesn't answer
TOKENIZER_FILE = "tokenizer.json"


class Interrupted(Exception):
    """A signal stopped the run; a checkpoint holds everything up to here."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + number  # as shells count: 130 after Ctrl-C, 143 after SIGTERM


def train(config: Config, run: Path) -> None:
    """Trains to the last step of `config`, going on from the newest checkpoint in the run folder if there is one.

    At the end the newest checkpoint is that of the last step. Raises `Interrupted` after Ctrl-C.
    """
    processes = config.train.processes
    if config.train.batch_size % processes:
        raise UserError(
            f"train.batch_size {config.train.batch_size} can't be cut into {processes} equal slices: "
            f"make it a multiple of train.processes."
        )
    if processes == 1:
        train_process(config, run)
        return
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as meeting:
        # Children get Ctrl-C themselves and save; the parent only waits for them.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            start_processes(
                run_child,
                (config, run, f"file://{meeting}/store", errors),
                nprocs=processes,
                start_method="spawn",
            )
        except (ProcessRaisedException, ProcessExitedException):
            # Where one child stopped for a reason that it told, the others fail for want of it.
            if errors.empty():
                raise
        finally:
            signal.signal(signal.SIGINT, previous)
    if not errors.empty():
        kind, message = errors.get()
        raise Interrupted(message) if kind == "interrupted" else UserError(message)


def run_child(
    rank: int,
    config: Config,
    run: Path,
    store: str,
    errors: "multiprocessing.SimpleQueue[tuple[str, str]]",
) -> None:
    """One of several training processes; what stops it is handed to the parent as a sentence."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        dist.init_process_group(
            "gloo", init_method=store, rank=rank, world_size=config.train.processes, timeout=GROUP_TIMEOUT
        )
        train_process(config, run)
        dist.destroy_process_group()
    except UserError as error:
        errors.put(("user", str(error)))
        os._exit(1)  # the others may be waiting inside a collective: they fail when this process is gone
    except Interrupted as error:
        errors.put(("interrupted", str(error)))
        dist.destroy_process_group()
    except KeyboardInterrupt:
        errors.put(("interrupted", "Stopped at once; the last checkpoint is what there is."))
        os._exit(1)


def train_process(config: Config, run: Path) -> None:
    """Trains in this process, alone or as one of a group."""
    device = choose_device(config.train.device)
    torch.set_num_threads(config.train.threads or max(1, (os.cpu_count() or 1) // config.train.processes))
    newest = newest_checkpoint(run / "checkpoints")
    torch.manual_seed(config.train.seed)
    task = build_task(config)
    if config.train.init and newest is None:
        start_from(task, config.train.init)
    if (config.train.init_image or config.train.init_text) and newest is None:
        start_from_encoders(task, config.train)
    task.to(device)
    optimizer = build_optimizer(task.student, config.train)
    facts: Facts = {}
    first_step = 0
    if newest is not None:
        facts = load_checkpoint(newest[0], task, optimizer)
        first_step = int(facts.pop("step"))
        choice = Choice.from_facts(facts)
        reason = f"{described(choice)}, as before the interruption"
    else:
        choice, reason = agree(*choose(config, device))
    kernels.use(choice.kernels)
    facts = {**choice._asdict(), "seconds": 0.0, "skipped": 0, **facts}
    if first_step >= config.train.steps:
        return

    source = open_source(config.data, "train", config.train.seed, config.model.image_size, config.task.name)
    tokenizer = Tokenizer.load(run / TOKENIZER_FILE)
    examples = ExampleSet(source, tokenizer, config.data, config.model, config.train.seed)
    steps_per_epoch = max(1, len(source) // config.train.batch_size)
    log = RunLog(run, first_step, config.train.steps) if distributed.rank() == 0 else None
    if log is not None:
        parameters = sum(parameter.numel() for parameter in task.student.parameters())
        log.say(f"{parameters:,} parameters on {device}; {reason}")

    task.train()
    say = print if log is None else log.say
    keep, keep_every = config.train.keep_checkpoints, config.train.keep_every_steps
    writer = CheckpointWriter(run / "checkpoints", identity(config), keep, keep_every, say, first_step)
    loop = Loop(config, run, task, optimizer, device, choice.precision, steps_per_epoch, facts, log, writer)
    stream = batches(
        examples,
        config.train.batch_size,
        first_step,
        distributed.rank(),
        distributed.world_size(),
        config.data.workers,
        run / "bad_samples.jsonl",
        say,
    )
    with log or contextlib.nullcontext(), writer:
        loop.run(stream, first_step)


def agree(choice: Choice, reason: str) -> tuple[Choice, str]:
    """Rank 0's choice for everyone: processes that measure for themselves might choose differently."""
    if distributed.in_group():
        shared: list[object] = [*choice, reason]
        dist.broadcast_object_list(shared)
        *parts, reason = map(str, shared)
        choice = Choice(*parts)
    return choice, reason


def synchronised(task: Task, fuse: bool) -> nn.Module:
    """The task itself in one process; among several a wrapper that averages the gradients.

    While only the contrastive loss is trained the fusion layers get no gradient, which the wrapper has to look for.
    """
    if not distributed.in_group():
        return task
    with warnings.catch_warnings():
        # `broadcast_buffers` has a successor, but not in every version of torch that is supported.
        warnings.simplefilter("ignore", FutureWarning)
        return DistributedDataParallel(task, broadcast_buffers=False, find_unused_parameters=not fuse)


@dataclass
class Loop:
    """The step, and what happens between steps."""

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
    interrupted: int = 0  # the signal that asks for a stop

    def run(self, stream: Iterator[Batch], first_step: int) -> None:
        """Every step from the first to the last."""
        config, student = self.config.train, self.task.student
        stopping = (signal.SIGINT, signal.SIGTERM)
        previous = {number: signal.signal(number, self.note_interrupt) for number in stopping}
        clip_norm = config.clip_norm or math.inf
        seconds_before = float(self.facts["seconds"])
        started, skipped_in_a_row = time.perf_counter(), 0
        window_started, window_step = started, first_step
        fuse: bool | None = None
        try:
            for step in range(first_step, config.steps):
                batch = next(stream).to(self.device, non_blocking=True)
                distributed.seed_step(config.seed, step)
                set_lr(self.optimizer, lr_at(step, config, self.steps_per_epoch))
                stage = stage_at(step, self.config, self.steps_per_epoch)
                if stage.fuse != fuse:
                    forward, fuse = synchronised(self.task, stage.fuse), stage.fuse
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                    output: Output = forward(batch, self.task.prepare(batch, stage), stage)
                loss = torch.stack(list(output.losses.values())).sum()
                loss.backward()
                grad_norm = clip_grad_norm_(student.parameters(), clip_norm)
                good, stop = self.everywhere(loss, grad_norm)
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
                        self.log.write(step, self.scalars(step, output, grad_norm, rate))
                if skipped_in_a_row == MAX_SKIPPED_IN_A_ROW:
                    raise UserError(
                        f"Step {step}: loss or gradient was NaN or infinite {MAX_SKIPPED_IN_A_ROW} times in a row. "
                        f"The last good checkpoint is in {self.run_folder / 'checkpoints'}; a lower train.lr or "
                        f"train.precision=fp32 may help."
                    )
                due = (step + 1) % config.checkpoint_every_steps == 0
                if (due and not skipped_in_a_row) or last or stop:
                    self.save(step + 1)
                if stop:
                    break
            self.finish(step + 1)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def finish(self, step: int) -> None:
        """Waits for the checkpoint of the last step; raises `Interrupted` if that step was not to be the last."""
        self.checkpoints.wait()
        steps, failure = self.config.train.steps, self.checkpoints.failure
        if failure and not self.interrupted:
            raise UserError(
                f"The last checkpoint could not be written to {self.checkpoints.folder} ({failure}). "
                f"Mend that, and the same command goes on from the one before it."
            )
        if self.interrupted or step < steps:
            saved = (
                f"but the checkpoint could not be written ({failure})"
                if failure
                else "the checkpoint is saved"
            )
            raise Interrupted(
                f"Stopped after step {step} of {steps}; {saved}.", self.interrupted or signal.SIGINT
            )

    def note_interrupt(self, number: int, frame: FrameType | None) -> None:
        """Asks for a stop after this step; a second Ctrl-C stops at once."""
        if self.interrupted:
            raise KeyboardInterrupt
        self.interrupted = number

    def everywhere(self, loss: Tensor, grad_norm: Tensor) -> tuple[bool, bool]:
        """Whether every process got a finite step, and whether any was asked to stop: one synchronisation."""
        bad = ~(loss.isfinite() & grad_norm.isfinite())
        flags = torch.stack([bad.float(), torch.tensor(float(self.interrupted > 0), device=bad.device)])
        bad_count, stop_count = distributed.all_sum(flags).tolist()
        return bad_count == 0, stop_count > 0

    def scalars(self, step: int, output: Output, grad_norm: Tensor, rate: float) -> dict[str, float]:
        """The figures of a logged step."""
        stage = stage_at(step, self.config, self.steps_per_epoch)
        tensors = {**output.losses, **output.measures, "grad_norm": grad_norm}
        values = {name: float(tensor.detach()) for name, tensor in tensors.items()}
        return values | {
            "lr": lr_at(step, self.config.train, self.steps_per_epoch),
            "alpha": stage.alpha,
            "hardness": stage.hardness,
            "pairs": (step + 1) * self.config.train.batch_size,
            "seconds": float(self.facts["seconds"]),
            "pairs_per_second": rate,
            "skipped": int(self.facts["skipped"]),
        }

    def save(self, step: int) -> None:
        """Begins to write a checkpoint after `step` steps, by the first process."""
        if distributed.rank() == 0:
            task, optimizer = self.task.state_dict(), optimizer_tensors(self.optimizer)
            self.checkpoints.save(step, task, optimizer, self.facts)
