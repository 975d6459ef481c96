"""Processes that train together: rank, gathering, seeds. With one process everything here is the identity."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from albef.config import UserError
from albef.gpu import own_gpu

Result = TypeVar("Result")


@contextlib.contextmanager
def group(timeout_seconds: float, device: str) -> Iterator[None]:
    """Joins the process group of torchrun while the block runs. Without torchrun nothing happens.

    Where `device` names a GPU, each process computes on one of its own, that of its local rank. Raises `UserError` if
    there are too few.
    """
    if "RANK" not in os.environ:
        yield
        return
    gpu = own_gpu(device)
    timeout = timedelta(seconds=timeout_seconds)
    agents: Store
    agents, number, size = next(rendezvous("env://", timeout=timeout))
    # torchrun keeps its store when it restarts a group: the new group must not read old entries.
    store = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", agents)
    if gpu is not None:
        torch.cuda.set_device(gpu)
    backend = "gloo" if gpu is None else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=number, world_size=size, timeout=timeout)
    yield
    dist.destroy_process_group()  # not after an error: the others may never answer


def in_group() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if in_group() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if in_group() else 1


def local_world_size() -> int:
    """How many processes of this training run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", world_size())) if in_group() else 1


def cores() -> int:
    """How many CPU cores this process may use. Containers and schedulers may allow fewer than there are."""
    # macOS only tells how many cores there are.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def from_first(function: Callable[[], Result]) -> Result:
    """The function's result in the first process, handed to all. A `UserError` there is raised in all processes."""
    if not in_group():
        return function()
    answers: list[Any] = [outcome(function) if rank() == 0 else None]
    dist.broadcast_object_list(answers)
    return checked(answers)[0]


def from_each(function: Callable[[], Result]) -> list[Result]:
    """The function's results in all processes, by rank, handed to all. A `UserError` in one is raised in all."""
    if not in_group():
        return [function()]
    answers: list[Any] = [None] * world_size()
    dist.all_gather_object(answers, outcome(function))
    return checked(answers)


def outcome(function: Callable[[], Result]) -> Result | UserError:
    """The function's result, or the `UserError` that it raised."""
    try:
        return function()
    except UserError as error:
        return error


def checked(answers: list[Any]) -> list[Any]:
    """The results of all processes. Raises the first `UserError` among them."""
    for answer in answers:
        if isinstance(answer, UserError):
            raise answer
    return answers


def share(count: int, unit: int = 1) -> range:
    """This process's part of range(count). The parts of all processes, by rank, make up the whole range.

    Parts begin at multiples of `unit`, so that batches of this size are the same as in a single process.
    """
    units, size = -(-count // unit), world_size()
    start, stop = (units * number // size * unit for number in (rank(), rank() + 1))
    return range(min(start, count), min(stop, count))


@torch.no_grad()
def all_gather(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors of all processes, each joined along the first dimension in order of rank. No gradient flows.

    All of them have the same number of rows. Their bytes travel in one message.
    """
    if not in_group():
        return tensors
    own = [tensor.reshape(len(tensor), -1).contiguous().view(torch.uint8) for tensor in tensors]
    rows = torch.cat(own, 1)
    every = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(every, rows)
    parts = torch.cat(every).split([part.shape[1] for part in own], 1)
    return tuple(
        part.contiguous().view(tensor.dtype).view(-1, *tensor.shape[1:])
        for part, tensor in zip(parts, tensors, strict=True)
    )


def gathered(tensor: Tensor) -> Tensor:
    """The tensors of all processes, joined along the first dimension in order of rank, with their gradient.

    Each process gets the sum of what all processes' losses say of its own rows.
    """
    joined: Tensor = _Gathered.apply(tensor) if in_group() else tensor
    return joined


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        ctx.rows = len(tensor)
        return all_gather(tensor)[0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        first = rank() * ctx.rows
        return all_sum(gradient)[first : first + ctx.rows]


@torch.no_grad()
def all_sum(tensor: Tensor) -> Tensor:
    """The sum of the tensor over all processes."""
    if not in_group():
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


@torch.no_grad()
def all_mean(tensor: Tensor) -> Tensor:
    """The mean of the tensor over all processes."""
    return all_sum(tensor) / world_size()


def seed(*key: int) -> None:
    """Seeds all following random draws (dropout, sampling) by the key. All keys must have the same length."""
    torch.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
