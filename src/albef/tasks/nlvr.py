"""NLVR2: is a statement true of two pictures? (paper §5.4)"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from albef.config import Config
from albef.data.records import Batch
from albef.model.albef import ALBEF
from albef.momentum import MomentumTeacher
from albef.tasks.base import Negatives, Output, Stage, Targets, Task
from albef.tasks.entailment import classified, classify


class NLVR(Task):
    """Two classes off the [CLS] that has seen both pictures, distilled (paper §5.4)."""

    teacher: MomentumTeacher

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.student = ALBEF(config.model, ("nlvr",))
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

    @staticmethod
    def adapt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Both layers of a pair start as the fusion layer of a model for single pictures (docs/published.md)."""
        return paired(state)


def paired(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights with each single fusion layer put twice in its place; pairs and all else stay as they are."""
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        root, _, rest = name.partition("fusion_encoder.layers.")
        number, _, part = rest.partition(".")
        if root or not rest or part.startswith(("first.", "second.")):
            found[name] = tensor
            continue
        found[f"fusion_encoder.layers.{number}.first.{part}"] = tensor
        if not part.startswith("cross_attention.key_value"):
            found[f"fusion_encoder.layers.{number}.second.{part}"] = tensor
    return found
