"""Processes that train together: rank, gathering, seeds. In one process everything is the identity."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def in_group() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number, from 0."""
    return dist.get_rank() if in_group() else 0


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if in_group() else 1


@torch.no_grad()
def all_gather(tensor: Tensor) -> Tensor:
    """The tensor of every process, joined along the first dimension in order of rank; no gradient flows."""
    if not in_group():
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def all_sum(tensor: Tensor) -> Tensor:
    """The sum of the tensor over all processes."""
    if not in_group():
        return tensor
    total = tensor.clone()
    dist.all_reduce(total)
    return total


def seed_step(seed: int, step: int) -> None:
    """Makes dropout and sampling of a step a function of (seed, step, rank)."""
    torch.manual_seed(hash((seed, step, rank())) & 0x7FFF_FFFF_FFFF_FFFF)
