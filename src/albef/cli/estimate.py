"""What training a recipe will cost on this machine: memory, time, and the largest batch that fits."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import NamedTuple

import torch
from torch import Tensor

from albef import distributed, gpu
from albef.config import Config
from albef.data.answers import ListedAnswers
from albef.data.loader import ExampleSet, batches
from albef.data.records import Batch
from albef.data.sources import open_source
from albef.data.words import AnyTokenizer
from albef.engine import choose_device
from albef.model import kernels
from albef.model.verbs import HEADS
from albef.run import answers_of, for_answers
from albef.systems import build_task, regions_for, words_of
from albef.tasks.base import Task
from albef.train.allocator import keep_freed_memory
from albef.train.kernel_choice import choose
from albef.train.optim import build_optimizer, stage_at
from albef.train.start import choose_tokenizer, initial_model

MAX_ROWS, MAX_ROWS_ON_GPU = 16, 64  # pairs in a timed step
TIMED_STEPS = 2
FREE_SHARE = 0.8  # share of the memory that training may fill


class Estimate(NamedTuple):
    """Memory of one process in bytes; time of all processes together in seconds."""

    device: str  # what computes, and in which precision
    parameters: int
    weights_bytes: int  # student and its gradients
    teacher_bytes: int  # teacher and queue
    optimizer_bytes: int
    activation_bytes_per_pair: float
    memory_bytes: int  # what the machine or GPU has for each process
    largest_micro_batch: int
    seconds_per_pair: float
    seconds_per_epoch: float
    seconds_in_all: float


def estimate(config: Config) -> Estimate:
    """Runs a few steps on the recipe's own data, and extrapolates. Writes nothing."""
    device = choose_device(config.train.device)
    processes = gpu.processes(config.train)
    torch.set_num_threads(config.train.threads or max(1, distributed.cores() // processes))
    keep_freed_memory()
    config, tokenizer, listed = begun(config)
    choice, _ = choose(config, device)
    kernels.use(choice.kernels)
    task = build_task(config).to(device).train()
    optimizer = build_optimizer(task.student, config.train)
    source = open_source(config.data, "train", config.train.seed, config.model.image_size, config.task.name)
    words, regions = words_of(config.model, tokenizer), regions_for(config)
    examples = ExampleSet(source, words, config.data, config.model, config.train.seed, regions, listed)
    most = MAX_ROWS_ON_GPU if device.type == "cuda" else MAX_ROWS
    rows = max(2, min(config.train.batch_size // processes, most))
    stream = (
        batch.to(device).normalised(config.model.mean, config.model.std) for batch in batches(examples, rows)
    )
    bf16 = choice.precision == "bf16"

    first = next(stream)
    half = first.slice(0, rows // 2)
    kept = [kept_bytes(task, part, config, bf16) for part in (half, first)]
    activations = max(kept[1] - kept[0], 1) / (rows - rows // 2)
    computing, moving = [], []
    for _ in range(TIMED_STEPS + 1):
        timed = step(task, next(stream), config, optimizer, bf16)
        computing.append(timed[0])
        moving.append(timed[1])

    parameters = sum(parameter.numel() for parameter in task.student.parameters())
    whole = sum(nbytes(tensor) for tensor in [*task.parameters(), *task.buffers()])
    weights = sum(nbytes(parameter) for parameter in task.student.parameters())
    moments = sum(nbytes(kept) for quantities in optimizer.state.values() for kept in quantities.values())
    fixed = whole + weights + moments  # `weights` once more: the gradients
    memory = memory_bytes(device) // processes
    # Processes share the pairs and compute them at the same time, but each updates all weights.
    per_pair = min(computing[1:]) / rows / processes + min(moving[1:]) / config.train.batch_size
    pairs_per_epoch = len(source) // config.train.batch_size * config.train.batch_size or len(source)
    names = [one.name for one in gpu.gpus()] if device.type == "cuda" else []
    return Estimate(
        device=f"{names[device.index or 0] if names else device.type}, {choice.precision}",
        parameters=parameters,
        weights_bytes=2 * weights,
        teacher_bytes=whole - weights,
        optimizer_bytes=moments,
        activation_bytes_per_pair=activations,
        memory_bytes=memory,
        largest_micro_batch=max(0, int((FREE_SHARE * memory - fixed) / activations)),
        seconds_per_pair=per_pair,
        seconds_per_epoch=per_pair * pairs_per_epoch,
        seconds_in_all=per_pair * config.train.steps * config.train.batch_size,
    )


def begun(config: Config) -> tuple[Config, AnyTokenizer, ListedAnswers | None]:
    """The configuration with the model's final sizes, its tokenizer, and the answers of a model that lists them."""
    tokenizer = choose_tokenizer(config)
    if config.train.init:
        model = initial_model(config)
    else:
        model = dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size)
    config = dataclasses.replace(config, model=model)
    answers = answers_of(config) if "answers" in HEADS[model.system] else []
    return for_answers(config, answers), tokenizer, ListedAnswers(answers) if answers else None


def step(
    task: Task, batch: Batch, config: Config, optimizer: torch.optim.Optimizer, bf16: bool
) -> tuple[float, float]:
    """Seconds of a step's losses and gradients, and seconds of its updates of student and teacher.

    The updates cost the same for every batch size. The step is the last of the run, in which every loss takes part.
    """
    started = time.perf_counter()
    last = stage_at(config.train.steps - 1, config, 1)
    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=bf16):
        output = task(batch, task.prepare(batch, last), last)
    torch.stack(list(output.losses.values())).sum().backward()
    between = now(batch.ids.device)
    optimizer.step()
    task.update(output)
    optimizer.zero_grad()
    return between - started, now(batch.ids.device) - between


def now(device: torch.device) -> float:
    """The time in seconds, after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def kept_bytes(task: Task, batch: Batch, config: Config, bf16: bool) -> int:
    """Bytes that autograd keeps for the backward pass of a batch, without the weights."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in [*task.parameters(), *task.buffers()]}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    last = stage_at(config.train.steps - 1, config, 1)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=bf16),
    ):
        output = task(batch, task.prepare(batch, last), last)
    total = sum(kept.values())
    del output  # it lived until here, so that no memory was reused and counted once for two tensors
    return total


def nbytes(tensor: Tensor) -> int:
    """Bytes of a tensor."""
    return tensor.numel() * tensor.element_size()


def memory_bytes(device: torch.device) -> int:
    """Memory of the device in bytes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
