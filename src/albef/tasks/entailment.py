"""Visual entailment: does a picture entail a sentence, contradict it, or leave it open? (paper §5.2)"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from albef import objectives
from albef.config import Config
from albef.data.records import Batch
from albef.model.albef import ALBEF
from albef.momentum import MomentumTeacher
from albef.tasks.base import Negatives, Output, Stage, Targets, Task

Logits = Float[Tensor, "pairs classes"]


class Entailment(Task):
    """Three classes off the fused [CLS], distilled (paper §5.2)."""

    teacher: MomentumTeacher

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.student = ALBEF(config.model, ("entailment",))
        self.teacher = MomentumTeacher(self.student, config.task.momentum, config.task.teacher_dropout)

    @torch.no_grad()
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The teacher's logits, where they have weight."""
        teacher = self.teacher.module
        assert isinstance(teacher, ALBEF)
        logits = classify(teacher, batch) if stage.alpha > 0 else None
        return Targets({"classification": batch.pixels.new_full((), len(batch))}, logits)

    def forward(
        self, batch: Batch, targets: Targets, stage: Stage, negatives: Negatives | None = None
    ) -> Output:
        """The student's loss."""
        return classified(classify(self.student, batch), batch, targets, stage)

    def update(self, output: Output) -> None:
        """Teacher moved."""
        self.teacher.update(self.student)


def classify(model: ALBEF, batch: Batch) -> Logits:
    """Logits of each text about its picture, or about both of its pictures."""
    pixels = batch.pixels
    if batch.second_pixels is not None:
        pixels = torch.cat([pixels, batch.second_pixels])
    text = model.encode_text(batch.ids, batch.mask)
    return model.classify(text.tokens, batch.mask, model.image_memory(model.encode_image(pixels)))


def classified(logits: Logits, batch: Batch, targets: Targets, stage: Stage) -> Output:
    """Loss and accuracy of the logits."""
    assert batch.label is not None
    loss = objectives.classification_loss(
        logits, targets.logits, batch.label, stage.alpha, targets.counts["classification"]
    )
    accuracy = (logits.detach().argmax(1) == batch.label).float().mean()
    return Output({"classification": loss}, None, {"accuracy": accuracy})
