"""What the tasks of systems on regions share: a student alone, and how answers and classes are learned."""

from __future__ import annotations

from typing import Any, ClassVar, Generic, TypeVar, cast

import torch
from jaxtyping import Float
from torch import Tensor

from albef import objectives
from albef.config import Config
from albef.data.records import Batch
from albef.peers import region_objectives
from albef.peers.regions import RegionModel
from albef.tasks.base import Output, Stage, Targets, Task

Model = TypeVar("Model", bound=RegionModel)


class RegionTask(Task, Generic[Model]):
    """A student alone, without a teacher. Only the optimizer changes it."""

    model: ClassVar[type[RegionModel]]  # the class of the student
    heads: ClassVar[tuple[str, ...]]
    student: Model
    teacher: None = None
    # Pre-training may choose one objective per step, and where [CLS] alone is read, a last layer may be read in part.
    trains_all = False

    def __init__(self, config: Config, heads: tuple[str, ...] | None = None) -> None:
        super().__init__()
        self.student = cast(Model, self.model(config.model, heads or self.heads))

    @torch.no_grad()
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The number of pairs."""
        return Targets({"pairs": torch.full((), float(len(batch)), device=batch.ids.device)})

    def update(self, output: Output) -> None:
        """Nothing besides the optimizer's."""

    def encoded(self, batch: Batch) -> tuple[Float[Tensor, "batch length width"], Any]:
        """Texts, and the memory of their images."""
        text = self.student.encode_text(batch.ids, batch.mask).tokens
        return text, self.student.image_memory(self.student.encode_image(batch.visual))

    def encoded_pairs(self, batch: Batch) -> tuple[Float[Tensor, "batch length width"], Any]:
        """Texts, and the memory of their two images: all first ones, then all second ones."""
        text = self.student.encode_text(batch.ids, batch.mask).tokens
        return text, self.student.image_memory(self.student.encode_image(batch.visuals))


def learn_answers(logits: Float[Tensor, "questions answers"], batch: Batch, targets: Targets) -> Output:
    """The summed binary cross-entropies of listed answers, and the mean score of the best ones."""
    assert batch.answer_scores is not None
    loss = region_objectives.listed_answer_loss(logits, batch.answer_scores, targets.counts["pairs"])
    best = logits.detach().argmax(1, keepdim=True)
    return Output({"answer": loss}, None, {"accuracy": batch.answer_scores.gather(1, best).mean()})


def learn_classes(logits: Float[Tensor, "texts classes"], batch: Batch, targets: Targets) -> Output:
    """The cross-entropy of each text's class, and the accuracy."""
    assert batch.label is not None
    loss = objectives.classification_loss(logits, None, batch.label, 0.0, targets.counts["pairs"])
    accuracy = (logits.detach().argmax(1) == batch.label).float().mean()
    return Output({"classification": loss}, None, {"accuracy": accuracy})
