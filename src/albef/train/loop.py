"""The training loop of every task: step, log, checkpoint, resume."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import tempfile
import time
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import FrameType

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grad_norm_

from albef import distributed
from albef.config import Config, UserError
from albef.data.loader import ExampleSet, batches, list_left_out
from albef.data.records import Batch
from albef.data.sources import Source, open_source
from albef.data.text import Tokenizer
from albef.engine import choose_device
from albef.lock import CHILD_LOCK_FILE, alone_in
from albef.model import kernels
from albef.tasks.base import Output, Stage, Task, joined
from albef.tasks.build import build_task
from albef.train.allocator import keep_freed_memory
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
from albef.train.logging import RunLog, Scalars
from albef.train.optim import build_optimizer, lr_at, set_lr, stage_at
from albef.train.resume import identity
from albef.train.sharding import plain, shard, whole

MAX_SKIPPED_IN_A_ROW = 20
TOKENIZER_FILE = "tokenizer.json"
INTERRUPTED_FILE = "interrupted"  # of a parent whose children may not have heard it
TEACHER, STUDENT = 0, 1  # last words of the random keys of a part of a step


class Interrupted(Exception):
    """A signal stopped the run; a checkpoint holds everything up to here."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + number  # as shells count: 130 after Ctrl-C, 143 after SIGTERM


def train(config: Config, run: Path) -> None:
    """Trains to the last step of `config`, going on from the newest checkpoint in the run folder if there is one.

    Within a group of processes as one of them, else in `train.processes` ones of its own. At the end the newest
    checkpoint is that of the last step. Raises `Interrupted` after Ctrl-C.
    """
    processes = distributed.world_size() if distributed.in_group() else config.train.processes
    if config.train.batch_size % processes:
        raise UserError(
            f"train.batch_size {config.train.batch_size} can't be cut into {processes} equal slices: "
            f"make it a multiple of the number of processes."
        )
    if distributed.in_group() or processes == 1:
        train_process(config, run)
        return
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    with tempfile.TemporaryDirectory() as meeting:
        # Children get Ctrl-C themselves and save. Until they can they ignore it, as they inherit: the parent notes it.
        previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            children = start_processes(
                run_child,
                (config, run, meeting, errors),
                nprocs=processes,
                join=False,
                start_method="spawn",
            )
            signal.signal(signal.SIGINT, lambda *_: (Path(meeting) / INTERRUPTED_FILE).touch())
            while not children.join():
                pass
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
    meeting: str,
    errors: "multiprocessing.SimpleQueue[tuple[str, str]]",
) -> None:
    """One of several training processes; what stops it is handed to the parent as a sentence."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if (Path(meeting) / INTERRUPTED_FILE).exists():
            raise KeyboardInterrupt
        with alone_in(run, CHILD_LOCK_FILE) if rank == 0 else contextlib.nullcontext():
            dist.init_process_group(
                "gloo",
                init_method=f"file://{meeting}/store",
                rank=rank,
                world_size=config.train.processes,
                timeout=timedelta(seconds=config.train.timeout_seconds),
            )
            train_process(config, run)
            dist.destroy_process_group()
    except UserError as error:
        errors.put(("user", str(error)))
        os._exit(1)  # the others may be waiting inside a collective: they fail when this process is gone
    except Interrupted as error:
        if rank == 0:  # which has written the checkpoint, or knows why it could not
            errors.put(("interrupted", str(error)))
        dist.destroy_process_group()
    except KeyboardInterrupt:
        errors.put(("interrupted", "Stopped at once; the last checkpoint is what there is."))
        os._exit(1)


def train_process(config: Config, run: Path) -> None:
    """Trains in this process, alone or as one of a group."""
    device = choose_device(config.train.device)
    shared_out = max(1, distributed.cores() // distributed.local_world_size())
    torch.set_num_threads(config.train.threads or shared_out)
    keep_freed_memory()
    newest = newest_checkpoint(run / "checkpoints")
    torch.manual_seed(config.train.seed)
    task = build_task(config)
    if config.train.init and newest is None:
        start_from(task, config.train.init)
    if (config.train.init_image or config.train.init_text) and newest is None:
        start_from_encoders(task, config.train)
    sharded = config.train.shard and distributed.in_group()
    if not sharded:
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
        choice, reason = distributed.from_first(lambda: choose(config, device))
    kernels.use(choice.kernels)
    facts = {**choice._asdict(), "seconds": 0.0, "skipped": 0, **facts}
    if first_step >= config.train.steps:
        return

    source = open_source(config.data, "train", config.train.seed, config.model.image_size, config.task.name)
    tokenizer = Tokenizer.load(run / TOKENIZER_FILE)
    examples = ExampleSet(source, tokenizer, config.data, config.model, config.train.seed)
    steps_per_epoch = max(1, len(source) // config.train.batch_size)
    log = None
    if distributed.rank() == 0:
        log = RunLog(run, first_step, config.train.steps)
        say_what_begins(log, task, source, f"{device}; {reason}")
        list_left_out(source, run / "bad_samples.jsonl", log.say)

    if sharded:
        shard(task, optimizer, device)
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


def say_what_begins(log: RunLog, task: Task, source: Source, where: str) -> None:
    """Says what is trained where and how, and what is odd about the data."""
    log.say(f"{sum(parameter.numel() for parameter in task.student.parameters()):,} parameters on {where}")
    for note in source.notes:
        log.say(note)


def synchronised(task: Task, losses: Collection[str], fuse: bool) -> nn.Module:
    """The task itself in one process; among several a wrapper that averages the gradients.

    Without contrast the projections get no gradient, without what is fused the fusion layers get none, which the
    wrapper has to look for.
    """
    if not distributed.in_group() or isinstance(task, FSDPModule):
        return task
    with warnings.catch_warnings():
        # `broadcast_buffers` has a successor, but not in every version of torch that is supported.
        warnings.simplefilter("ignore", FutureWarning)
        every = fuse and "itc" in losses and not {"itm", "mlm"}.isdisjoint(losses)
        return DistributedDataParallel(task, broadcast_buffers=False, find_unused_parameters=not every)


def averaging(forward: nn.Module, last: bool) -> contextlib.AbstractContextManager[None]:
    """Among several processes gradients are averaged once, with the last part of the batch."""
    if isinstance(forward, FSDPModule):
        forward.set_requires_gradient_sync(last)
    elif isinstance(forward, DistributedDataParallel) and not last:
        return forward.no_sync()
    return contextlib.nullcontext()


def summed(outputs: Sequence[Output]) -> Output:
    """The output of a batch from those of its parts: losses add up, measures are averaged, keys are of all anyway."""
    first = outputs[0]
    losses = {name: torch.stack([o.losses[name].detach() for o in outputs]).sum() for name in first.losses}
    measures = {name: torch.stack([o.measures[name] for o in outputs]).mean() for name in first.measures}
    return Output(losses, first.keys, measures)


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
                batch = next(stream)
                set_lr(self.optimizer, lr_at(step, config, self.steps_per_epoch))
                stage = stage_at(step, self.config, self.steps_per_epoch)
                if stage.fuse != fuse:
                    forward = synchronised(self.task, self.config.task.losses, stage.fuse)
                    fuse = stage.fuse
                output = self.backward(forward, batch, step, stage)
                grad_norm = plain(clip_grad_norm_(student.parameters(), clip_norm))
                scalars, good, stop = self.everywhere(output, grad_norm)
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

    def backward(self, forward: nn.Module, batch: Batch, step: int, stage: Stage) -> Output:
        """Losses of this process's batch, whose gradients are now in the parameters.

        The teacher first sees all parts of the batch, so that the student contrasts each with the whole. Dropout and
        draws of a part depend on its place in the global batch, whichever process computes it.
        """
        config = self.config.train
        size = config.micro_batch_size or len(batch)
        # Cut on the host: a GPU would have to say how many masked tokens are in a part.
        here = [part.to(self.device, non_blocking=True) for part in batch.split(size)]
        parts = list(enumerate(here, distributed.rank() * -(-len(batch) // size)))
        with self.autocast():
            said = []
            for number, part in parts:
                distributed.seed(config.seed, step, number, TEACHER)
                said.append(self.task.prepare(part, stage))
        outputs: list[Output] = []
        for (number, part), targets in zip(parts, joined(said, self.config.task.gather_batch), strict=True):
            distributed.seed(config.seed, step, number, STUDENT)
            with averaging(forward, last=len(outputs) + 1 == len(parts)):
                with self.autocast():
                    output: Output = forward(part, targets, stage)
                torch.stack(list(output.losses.values())).sum().backward()
            outputs.append(output)
        return summed(outputs)

    def autocast(self) -> torch.autocast:
        """The run's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def everywhere(self, output: Output, grad_norm: Tensor) -> tuple[Scalars, bool, bool]:
        """The step's figures over all processes, whether they are finite, and whether any process was asked to stop.

        This is the step's one synchronisation with the device.
        """
        named = {**output.losses, **output.measures, "grad_norm": grad_norm}
        asked = torch.full_like(grad_norm, self.interrupted)
        *values, stop = distributed.all_mean(torch.stack([*named.values(), asked])).tolist()
        scalars = dict(zip(named, values, strict=True))
        good = all(math.isfinite(scalars[name]) for name in (*output.losses, "grad_norm"))
        return scalars, good, stop > 0

    def progress(self, step: int, rate: float) -> Scalars:
        """Where in its schedules a logged step is, and what it cost."""
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
        """Begins to write a checkpoint after `step` steps; every process gives its part of what is sharded."""
        task, optimizer = whole(self.task.state_dict()), whole(optimizer_tensors(self.optimizer))
        if distributed.rank() == 0:
            self.checkpoints.save(step, task, optimizer, self.facts)
