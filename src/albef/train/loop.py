"""A training in one or several processes: begin or resume, then step by step."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch.multiprocessing.spawn import ProcessExitedException, ProcessRaisedException, start_processes

from albef import distributed, gpu
from albef.children import check_script, held_back, refuse_while_starting, why_ended
from albef.config import Config, UserError
from albef.data.answers import ListedAnswers
from albef.data.loader import ExampleSet, batches, list_left_out
from albef.data.sources import Source, open_source
from albef.disk import check_room, told
from albef.engine import choose_device
from albef.lock import CHILD_LOCK_FILE, alone_in
from albef.model import kernels
from albef.progress import discard_what_is_gone
from albef.progress import say as print_line
from albef.systems import SYSTEMS, build_task, regions_for, words_of
from albef.tasks.base import Task
from albef.train.allocator import keep_freed_memory
from albef.train.checkpoint import CheckpointWriter, Facts, load_checkpoint, newest_checkpoint, room_needed
from albef.train.device import compile_step, set_up
from albef.train.initial import start_from
from albef.train.initial_encoders import start_from_encoders
from albef.train.kernel_choice import Choice, choose, described
from albef.train.logging import RunLog
from albef.train.optim import build_optimizer
from albef.train.resume import agreed, identity
from albef.train.sharding import shard
from albef.train.steps import Loop
from albef.train.stopping import (
    SAVE,
    Interrupted,
    check_main_thread,
    handled,
    heard,
    stop_at_once,
)

TOKENIZER_FILE = "tokenizer.json"
NO_ROOM_FOR_WEIGHTS = (
    "it has no room for the weights, teacher and optimizer. Take a smaller model.size, or share them among several "
    "GPUs: train.shard under torchrun."
)


def train(config: Config, run: Path, answers: Sequence[str] = ()) -> None:
    """Trains to the last step of `config`, from the newest checkpoint in the run folder if there is one.

    In a process group it trains as one of its processes. Otherwise it starts `train.processes` processes on a CPU, and
    computes by itself on a GPU. At the end there is a checkpoint of the last step. `answers` are those to questions
    that a system which lists answers chooses from. Raises `Interrupted` after Ctrl-C, SIGTERM or SIGHUP.
    """
    refuse_while_starting()
    check_main_thread()
    processes = distributed.world_size() if distributed.in_group() else gpu.processes(config.train)
    if config.train.batch_size % processes:
        raise UserError(
            f"train.batch_size {config.train.batch_size} cannot be divided equally among {processes} processes. "
            f"Make it a multiple of {processes}."
        )
    if distributed.in_group() or processes == 1:
        train_process(config, run, answers)
    else:
        train_in_processes(config, run, answers)


def train_in_processes(config: Config, run: Path, answers: Sequence[str]) -> None:
    """Starts `train.processes` processes that train, and passes signals on to them."""
    check_script()
    # Asked before they start: a process that waits for others that have stopped hears no signal and is killed late.
    with alone_in(run, CHILD_LOCK_FILE, say=said_before):
        pass
    errors = multiprocessing.get_context("spawn").SimpleQueue()
    numbers, noted = heard(), list[int]()
    children: list[BaseProcess] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        noted.append(number)
        for child in children:
            if child.pid and child.is_alive():
                # A terminal sends Ctrl-C to the children too. A second one would stop them at once.
                os.kill(child.pid, SAVE if number == SAVE else signal.SIGTERM)

    temporary = Path(tempfile.gettempdir())
    with told(f"{temporary}, where temporary files are (see TMPDIR)", temporary):
        place = tempfile.TemporaryDirectory()
    with place as meeting, handled(numbers, pass_on):
        resource_tracker.ensure_running()  # now, since starting it unblocks signals
        with held_back(numbers):  # in the children too, until they can handle signals
            started = start_processes(
                run_child,
                (config, run, answers, meeting, errors),
                nprocs=config.train.processes,
                join=False,
                start_method="spawn",
            )
        children += started.processes
        for number in tuple(noted):  # signals that arrived meanwhile
            pass_on(number, None)
        try:
            while not started.join():
                pass
        except ProcessRaisedException:
            # If one child has stopped and reported why, the others fail because of it.
            if errors.empty():
                raise
        except ProcessExitedException as error:
            if errors.empty():
                raise UserError(why_ended(error.exit_code)) from None
    if not errors.empty():
        kind, message = errors.get()
        if kind != "interrupted":
            raise UserError(message)
        discard_what_is_gone()  # the terminal may have closed
        raise Interrupted(message, next((number for number in noted if number != SAVE), signal.SIGINT))


def said_before(line: str) -> None:
    """What is to be said of the folder's first lock is true of the others, and has been said."""


def run_child(
    rank: int,
    config: Config,
    run: Path,
    answers: Sequence[str],
    meeting: str,
    errors: "multiprocessing.SimpleQueue[tuple[str, str]]",
) -> None:
    """One of several training processes. If it stops early, it tells the parent why."""
    stopping = heard() - {SAVE}
    try:
        with handled(stopping, stop_at_once):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, stopping)
            with alone_in(run, CHILD_LOCK_FILE, say=said_before) if rank == 0 else contextlib.nullcontext():
                dist.init_process_group(
                    "gloo",
                    init_method=f"file://{meeting}/store",
                    rank=rank,
                    world_size=config.train.processes,
                    timeout=timedelta(seconds=config.train.timeout_seconds),
                )
                train_process(config, run, answers)
                dist.destroy_process_group()
    except UserError as error:
        errors.put(("user", str(error)))
        os._exit(1)  # the others may wait in a collective, and fail when this process is gone
    except Interrupted as error:
        if rank == 0:  # the process that writes checkpoints
            errors.put(("interrupted", str(error)))
        dist.destroy_process_group()
    except KeyboardInterrupt:
        errors.put(("interrupted", "Stopped at once. The run continues from the last checkpoint."))
        os._exit(1)


class Begun(NamedTuple):
    """A training, ready for its next step."""

    task: Task
    optimizer: torch.optim.AdamW
    choice: Choice
    reason: str  # why this choice, in words
    facts: Facts
    first_step: int


def begin(config: Config, run: Path, device: torch.device, answers: Sequence[str] = ()) -> Begun:
    """A training at its newest checkpoint, the same in all processes, or at its beginning."""
    newest = distributed.from_first(lambda: newest_checkpoint(run / "checkpoints", print_line))
    torch.manual_seed(config.train.seed)
    task = build_task(config)
    if config.train.init and newest is None:
        start_from(task, config.train.init, answers)
    if (config.train.init_image or config.train.init_text) and newest is None:
        start_from_encoders(task, config.train)
    if not in_slices(config):
        task.to(device)
    optimizer = build_optimizer(task.student, config.train)
    first = {"seconds": 0.0, "skipped": 0}
    if newest is None:
        choice, reason = distributed.from_first(lambda: choose(config, device))
        return Begun(task, optimizer, choice, reason, {**choice._asdict(), **first}, 0)
    facts = agreed(newest, lambda: load_checkpoint(newest[0], task, optimizer))
    choice = Choice.from_facts(facts)
    step = int(facts.pop("step"))
    reason = f"{described(choice)} (as before the interruption)"
    return Begun(task, optimizer, choice, reason, {**first, **facts}, step)


def in_slices(config: Config) -> bool:
    """Whether each process holds a slice of every tensor (FSDP2)."""
    return config.train.shard and distributed.in_group()


def train_process(config: Config, run: Path, answers: Sequence[str] = ()) -> None:
    """Trains in this process, alone or as one of several."""
    device = choose_device(config.train.device)
    if device.index is not None and device.type == "cuda":
        torch.cuda.set_device(
            device
        )  # else what names no GPU, such as pinned memory, would begin to use the first
    shared_out = max(1, distributed.cores() // distributed.local_world_size())
    torch.set_num_threads(config.train.threads or shared_out)
    keep_freed_memory()
    set_up(config.train, device)
    with gpu.full_memory_told(NO_ROOM_FOR_WEIGHTS):
        task, optimizer, choice, reason, facts, first_step = begin(config, run, device, answers)
    kernels.use(choice.kernels)
    if first_step >= config.train.steps:
        return
    checkpoints = run / "checkpoints"
    room = room_needed(checkpoints, task, optimizer, config.train, first_step)
    distributed.from_first(lambda: check_room(checkpoints, room))

    source = open_source(config.data, "train", config.train.seed, config.model.image_size, config.task.name)
    tokenizer = SYSTEMS[config.model.system].tokenizer.load(run / TOKENIZER_FILE)
    words, regions = words_of(config.model, tokenizer), regions_for(config)
    listed = ListedAnswers(answers) if answers and "answers" in task.student.heads else None
    examples = ExampleSet(source, words, config.data, config.model, config.train.seed, regions, listed)
    steps_per_epoch = max(1, len(source) // config.train.batch_size)
    log, say = None, print_line
    if distributed.rank() == 0:
        log = RunLog(run, first_step, config.train.steps)
        say = log.say
        say_what_begins(log, task, source, f"{device}; {reason}")
        if not distributed.in_group() and gpu.processes(config.train) < config.train.processes:
            say("One process computes: train.processes is for CPUs. For several GPUs, start with torchrun.")
        list_left_out(source, run / "bad_samples.jsonl", say)

    if in_slices(config):
        shard(task, optimizer, device, bf16=choice.precision == "bf16")
    task.train()
    if config.train.compile:
        compile_step(task, config.train)
    keep, keep_every = config.train.keep_checkpoints, config.train.keep_every_steps
    noted = identity(config) if distributed.rank() == 0 else {}  # which alone writes them
    writer = CheckpointWriter(checkpoints, noted, keep, keep_every, say, first_step)
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
        pinned=device.type == "cuda",
    )
    remedy = gpu.remedy_in_training(config.train, config.train.batch_size // distributed.world_size())
    with log or contextlib.nullcontext(), writer, gpu.full_memory_told(remedy):
        loop.run(stream, first_step)


def say_what_begins(log: RunLog, task: Task, source: Source, where: str) -> None:
    """Says what is trained, on what device, and what is unusual about the data."""
    log.say(f"{sum(parameter.numel() for parameter in task.student.parameters()):,} parameters on {where}")
    log.say(f"{len(source):,} training records")
    for note in source.notes:
        log.say(note)
