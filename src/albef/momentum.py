"""The momentum teacher and the queue of its features (paper §3.2–3.3)."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

# No real pair has this id, so an entry that was never written equals no pair.
NOBODY = torch.iinfo(torch.long).min


class MomentumTeacher(nn.Module, Generic[Module]):
    """An exponential moving average of a module: θ_teacher ← m·θ_teacher + (1 − m)·θ_student."""

    def __init__(self, module: Module, momentum: float, dropout: bool = False) -> None:
        super().__init__()
        self.momentum, self.dropout = momentum, dropout
        self.module: Module = copy.deepcopy(module).requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> MomentumTeacher[Module]:
        """This module. The teacher's dropout follows its own setting, not the student (docs/published.md, Q10)."""
        super().train(mode)
        self.module.train(mode and self.dropout)
        return self

    @contextlib.contextmanager
    def cast_once(self) -> Iterator[None]:
        """Within it autocast casts each of the teacher's weights once, not at each use."""
        self.module.requires_grad_(True)  # autocast keeps the cast of a weight only if it takes a gradient
        try:
            yield
        finally:
            self.module.requires_grad_(False)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Moves every weight towards the student's weight, in place."""
        torch._foreach_lerp_(list(self.module.parameters()), list(student.parameters()), 1 - self.momentum)


class Keys(NamedTuple):
    """Teacher features of pairs, and the ids that tell which pairs are the same."""

    image: Float[Tensor, "pairs width"]
    text: Float[Tensor, "pairs width"]
    image_id: Int[Tensor, " pairs"]
    caption_id: Int[Tensor, " pairs"]


class FeatureQueue(nn.Module):
    """A ring buffer of the teacher's most recent features.

    Any batch size works with any queue size, 0 included. Entries never written do not count as negatives.
    `random=True` starts with random unit vectors that do count, as published (docs/published.md, Q8).
    """

    image: Tensor
    text: Tensor
    image_id: Tensor
    caption_id: Tensor
    pointer: Tensor
    count: Tensor

    def __init__(self, size: int, width: int, random: bool = False) -> None:
        super().__init__()
        self.size = size
        for name in ("image", "text"):
            features = torch.randn(size, width) if random else torch.zeros(size, width)
            self.register_buffer(name, nn.functional.normalize(features, dim=1))
        for name in ("image_id", "caption_id"):
            self.register_buffer(name, torch.full((size,), NOBODY))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))
        self.register_buffer("count", torch.full((1,), size if random else 0))

    @torch.no_grad()
    def push(self, keys: Keys) -> None:
        """Overwrites the oldest pairs. Of more pairs than the queue can hold, only the last stay."""
        pushed = len(keys.image_id)
        kept = min(pushed, self.size)
        if kept == 0:
            return
        places = (self.pointer + pushed - kept + torch.arange(kept, device=self.pointer.device)) % self.size
        for name, values in keys._asdict().items():
            buffer = getattr(self, name)
            buffer.index_copy_(0, places, values[pushed - kept :].to(buffer.dtype))
        self.pointer.add_(pushed).remainder_(self.size)
        self.count.add_(pushed).clamp_(max=self.size)

    def empty(self) -> Bool[Tensor, " size"]:
        """Which entries were never written."""
        return torch.arange(self.size, device=self.count.device) >= self.count
