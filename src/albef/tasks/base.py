"""What every task is: a student, its teacher and queue, and three methods: prepare, forward, update."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from albef.data.records import Batch
from albef.distributed import all_gather, all_mean, rank
from albef.model.albef import ALBEF
from albef.momentum import Keys, MomentumTeacher


@dataclass(frozen=True)
class Stage:
    """Where in its schedule training is: functions of the step, so nothing of it needs saving."""

    alpha: float  # weight of the pseudo-targets
    hardness: float = 1.0  # of ITM negatives: 0 drawn evenly, 1 as similar as the paper's
    fuse: bool = True  # False while only the contrastive loss is trained


class Negatives(NamedTuple):
    """Drawn negatives: for text b the image `image[b]`, for image b the text `text[b]`."""

    image: Int[Tensor, " batch"]
    text: Int[Tensor, " batch"]


class Targets(NamedTuple):
    """What the teacher says of a batch, and what the means of its losses are over."""

    counts: dict[str, Float[Tensor, ""]]  # by loss: pairs, masked tokens, questions
    logits: Float[Tensor, "predictions classes"] | None = (
        None  # of words, answers or labels; None: of no weight
    )
    keys: Keys | None = None  # None: a task that contrasts nothing
    first_row: int = 0  # of the batch in `keys`
    bank: slice = slice(None)  # the rows of `keys` that are contrasted with


def joined(parts: Sequence[Targets], gather_batch: bool) -> list[Targets]:
    """The targets of each part of this process's batch, with the keys and the counts of the global batch.

    Counts are of a process on average: then the losses of the parts add up, and their mean over processes is the loss
    of the global batch. Without `gather_batch` the keys of other processes are not contrasted with (published).
    """
    names = list(parts[0].counts)
    mine = torch.stack([torch.stack([part.counts[name] for name in names]) for part in parts]).sum(0)
    counts = dict(zip(names, all_mean(mine), strict=True))
    given = [part.keys for part in parts if part.keys is not None]
    if not given:
        return [part._replace(counts=counts) for part in parts]
    own = Keys(*(torch.cat(tensors) for tensors in zip(*given, strict=True)))
    keys = Keys(*(all_gather(tensor) for tensor in own))
    rows = len(own.image_id)
    first = rank() * rows
    bank = slice(None) if gather_batch else slice(first, first + rows)
    found = []
    for part, part_keys in zip(parts, given, strict=True):
        found.append(part._replace(counts=counts, keys=keys, first_row=first, bank=bank))
        first += len(part_keys.image_id)
    return found


class Output(NamedTuple):
    """Losses to be summed, what the queue gets, and measurements for the log."""

    losses: dict[str, Float[Tensor, ""]]
    keys: Keys | None  # None: a task without a queue
    measures: dict[str, Float[Tensor, ""]]


class Task(nn.Module, abc.ABC):
    """A student under training with everything that belongs to its objective, as one module."""

    student: ALBEF
    teacher: MomentumTeacher | None

    @abc.abstractmethod
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """What the teacher says of a batch or a part of one, without gradient; `joined` makes parts a whole."""

    @abc.abstractmethod
    def forward(
        self, batch: Batch, targets: Targets, stage: Stage, negatives: Negatives | None = None
    ) -> Output:
        """The student's losses; changes nothing."""

    @abc.abstractmethod
    def update(self, output: Output) -> None:
        """Every change outside the optimizer, once per optimizer step."""

    @staticmethod
    def adapt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a model trained for another task, under the names that they have in this one."""
        return dict(state)
