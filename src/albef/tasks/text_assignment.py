"""Text assignment: which of two pictures is a text about? It teaches the paired layers before NLVR2 (paper §5.4)."""

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
from albef.tasks.base import Negatives, Output, Stage, Targets, Task
from albef.tasks.classes import paired

TEMPERATURE = 0.07  # of the similarity by which negatives are drawn; fixed, as published


class Assignment(NamedTuple):
    """Two pictures of the batch for each text, and whose it is (2: neither's)."""

    pair: Int[Tensor, "texts 2"]
    label: Int[Tensor, " texts"]


class TextAssignment(Task):
    """Three classes off the [CLS] that has seen both pictures; no teacher (docs/published.md)."""

    teacher: None = None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.mask_same_pairs = config.task.mask_same_pairs
        # The projections say which pictures are alike; nothing here trains them.
        self.student = ALBEF(config.model, ("contrast", "text_assignment"))
        for part in (self.student.image_projection, self.student.text_projection, self.student.temperature):
            part.requires_grad_(False)

    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """How many texts have a negative; there is no teacher."""
        return Targets({"assignment": self.allowed(batch).any(1).sum().to(batch.pixels.dtype)})

    def forward(
        self,
        batch: Batch,
        targets: Targets,
        stage: Stage,
        negatives: Negatives | None = None,
        assignment: Assignment | None = None,
    ) -> Output:
        """The loss; the pictures of each text are drawn unless given."""
        student = self.student
        image, text = student.encode_image(batch.pixels), student.encode_text(batch.ids, batch.mask)
        allowed = self.allowed(batch)
        if assignment is None:
            feature = image.feature.detach()
            drawn = objectives.sample_assignments(feature @ feature.T / TEMPERATURE, allowed)
            assignment = Assignment(*drawn)
        memory = student.image_memory(image).select(assignment.pair.T.flatten())
        logits = student.classify(text.tokens, batch.mask, memory)
        weight = allowed.any(1).to(batch.pixels.dtype)
        loss = objectives.assignment_loss(logits, assignment.label, weight, targets.counts["assignment"])
        correct = ((logits.detach().argmax(1) == assignment.label) * weight).sum() / weight.sum().clamp(min=1)
        return Output({"assignment": loss}, None, {"accuracy": correct})

    def allowed(self, batch: Batch) -> Bool[Tensor, "texts pictures"]:
        """Which pictures of the batch may be a text's negatives: others, that don't go with the same words."""
        same = torch.eye(len(batch), dtype=torch.bool, device=batch.ids.device)
        if self.mask_same_pairs:
            same = same | (batch.image_id[:, None] == batch.image_id)
            same = same | (batch.caption_id[:, None] == batch.caption_id)
        return ~same

    def update(self, output: Output) -> None:
        """Nothing moves beside the optimizer."""

    @staticmethod
    def adapt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Both layers of a pair start as the fusion layer of a pre-trained model."""
        return paired(state)
