"""Text assignment: to which of two images a text belongs. Pre-trains the paired layers for NLVR2 (paper §5.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from albef import objectives
from albef.config import Config
from albef.data.records import Batch
from albef.model.albef import ALBEF
from albef.tasks.base import Output, Stage, Targets, Task
from albef.tasks.classes import paired
from albef.tasks.contrast import same_pairs

TEMPERATURE = 0.07  # of the similarities that negatives are drawn by; fixed, as published


class Assignment(NamedTuple):
    """Two images of the batch for each text, and the label of the one it belongs to (2: neither)."""

    pair: Int[Tensor, "texts 2"]
    label: Int[Tensor, " texts"]


class TextAssignment(Task):
    """Three classes from the [CLS] that has seen both images. There is no teacher (docs/published.md)."""

    student: ALBEF
    teacher: None = None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.mask_same_pairs = config.task.mask_same_pairs
        # The projections are only used to find similar images. This task does not train them.
        self.student = ALBEF(config.model, ("contrast", "text_assignment"))
        for part in (self.student.image_projection, self.student.text_projection, self.student.temperature):
            part.requires_grad_(False)

    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The number of texts with a negative. There is no teacher."""
        return Targets({"assignment": self.allowed(batch).any(1).sum().to(torch.get_default_dtype())})

    def forward(
        self, batch: Batch, targets: Targets, stage: Stage, drawn: Assignment | None = None
    ) -> Output:
        """The loss. The two images of each text are drawn unless given."""
        student = self.student
        image, text = student.encode_image(batch.visual), student.encode_text(batch.ids, batch.mask)
        allowed = self.allowed(batch)
        if drawn is None:
            feature = image.feature.detach()
            drawn = Assignment(*objectives.sample_assignments(feature @ feature.T / TEMPERATURE, allowed))
        memory = student.image_memory(image).select(drawn.pair.T.flatten())
        logits = student.classify(text.tokens, batch.mask, memory)
        weight = allowed.any(1).to(torch.get_default_dtype())
        loss = objectives.assignment_loss(logits, drawn.label, weight, targets.counts["assignment"])
        correct = ((logits.detach().argmax(1) == drawn.label) * weight).sum() / weight.sum().clamp(min=1)
        return Output({"assignment": loss}, None, {"accuracy": correct})

    def allowed(self, batch: Batch) -> Bool[Tensor, "texts images"]:
        """Which images of the batch may be a text's negatives: neither the same image nor one with the same caption."""
        return ~same_pairs(batch, self.mask_same_pairs, self.mask_same_pairs)

    def update(self, output: Output) -> None:
        """Only the optimizer changes anything."""

    @staticmethod
    def adapt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Starts both layers of a pair from the fusion layer of a pre-trained model."""
        return paired(state)
