"""The base of all tasks: a student, its teacher and queue, and three methods: prepare, forward, update."""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from albef.config import DISTILLED
from albef.data.records import Batch
from albef.distributed import all_gather, all_mean, rank
from albef.model.verbs import VisionLanguageModel
from albef.momentum import Keys, MomentumTeacher


@dataclass(frozen=True)
class Stage:
    """The scheduled values of a step. They depend on the step alone, so checkpoints need not store them."""

    alpha: float  # weight of the soft targets
    hardness: float = 1.0  # of ITM negatives: 0 = drawn uniformly, 1 = the paper's hard negatives
    fuse: bool = True  # False while only ITC is trained
    step: int = 0  # its number, for tasks that train one objective per step
    distill: Collection[str] = DISTILLED  # the losses with soft targets

    def alpha_of(self, loss: str) -> float:
        """The weight of a loss's soft targets. With 0 it has none."""
        return self.alpha if loss in self.distill else 0.0


class Negatives(NamedTuple):
    """Drawn negatives: for text b the image `image[b]`, for image b the text `text[b]`."""

    image: Int[Tensor, " batch"]
    text: Int[Tensor, " batch"]


class Targets(NamedTuple):
    """The teacher's outputs for a batch, and the counts that losses are divided by."""

    counts: dict[str, Float[Tensor, ""]]  # by loss: pairs, masked tokens, questions
    logits: Float[Tensor, "predictions classes"] | None = None  # of labels; None: not used
    # What the teacher's head turns into logits of words or answers, part by part: all of them at once would be large.
    states: Float[Tensor, "predictions width"] | None = None  # None: not used
    keys: Keys | None = None  # None: no ITC
    first_row: int = 0  # where this batch begins in `keys`
    bank: slice = slice(None)  # the rows of `keys` that are candidates
    drawn: Any = None  # what a task draws before it can count; None: nothing


def joined(parts: Sequence[Targets], gather_batch: bool) -> list[Targets]:
    """The targets of each part of this process's batch, with keys and counts of the global batch.

    Counts are the mean over processes. Then the losses of the parts add up, and their mean over processes is the loss
    of the global batch. Without `gather_batch`, keys of other processes are no candidates (as published).
    """
    names = list(parts[0].counts)
    mine = torch.stack([torch.stack([part.counts[name] for name in names]) for part in parts]).sum(0)
    counts = dict(zip(names, all_mean(mine), strict=True))
    given = [part.keys for part in parts if part.keys is not None]
    if not given:
        return [part._replace(counts=counts) for part in parts]
    own = Keys(*(torch.cat(tensors) for tensors in zip(*given, strict=True)))
    keys = Keys(*all_gather(*own))
    rows = len(own.image_id)
    first = rank() * rows
    bank = slice(None) if gather_batch else slice(first, first + rows)
    found = []
    for part, part_keys in zip(parts, given, strict=True):
        found.append(part._replace(counts=counts, keys=keys, first_row=first, bank=bank))
        first += len(part_keys.image_id)
    return found


class Output(NamedTuple):
    """Losses to add up, keys for the queue, and measures for the log."""

    losses: dict[str, Float[Tensor, ""]]
    keys: Keys | None  # None: a task without a queue
    measures: dict[str, Float[Tensor, ""]]


class Task(nn.Module, abc.ABC):
    """A student in training, with everything that its objective needs, as one module."""

    student: VisionLanguageModel
    teacher: MomentumTeacher[Any] | None
    trains_all: ClassVar[bool] = True  # whether a step with all losses trains all parameters

    @abc.abstractmethod
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The teacher's outputs for a batch or a part of it, without gradient. `joined` combines the parts."""

    @abc.abstractmethod
    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: Any = None) -> Output:
        """The student's losses. Changes no state. What a task draws within the batch can be given as `drawn`."""

    @abc.abstractmethod
    def update(self, output: Output) -> None:
        """All changes of state besides the optimizer's, once per optimizer step."""

    @staticmethod
    def adapt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a model of another task, under the names of this task."""
        return dict(state)
