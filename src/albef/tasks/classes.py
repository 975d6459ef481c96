"""Tasks with a few classes: visual entailment (paper §5.2) and NLVR2 (§5.4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from albef import objectives
from albef.config import Config
from albef.data.records import Batch
from albef.model.albef import ALBEF
from albef.momentum import MomentumTeacher
from albef.tasks.base import Output, Stage, Targets, Task

Logits = Float[Tensor, "texts classes"]


class Classes(Task):
    """Classification from the fused [CLS], with momentum distillation."""

    head: ClassVar[str]
    student: ALBEF
    teacher: MomentumTeacher[ALBEF]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.student = ALBEF(config.model, (self.head,))
        self.teacher = MomentumTeacher(self.student, config.task.momentum, config.task.teacher_dropout)

    @torch.no_grad()
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The teacher's logits, if they are used."""
        taught = stage.alpha_of("classification") > 0
        logits = classify(self.teacher.module, batch) if taught else None
        return Targets({"classification": torch.full((), float(len(batch)), device=batch.ids.device)}, logits)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: None = None) -> Output:
        """The student's loss and accuracy."""
        assert batch.label is not None
        logits, count = classify(self.student, batch), targets.counts["classification"]
        loss = objectives.classification_loss(logits, targets.logits, batch.label, stage.alpha, count)
        accuracy = (logits.detach().argmax(1) == batch.label).float().mean()
        return Output({"classification": loss}, None, {"accuracy": accuracy})

    def update(self, output: Output) -> None:
        """Moves the teacher."""
        self.teacher.update(self.student)


class Entailment(Classes):
    """Whether an image entails a sentence, contradicts it, or leaves it open (paper §5.2)."""

    head = "entailment"


class NLVR(Classes):
    """Whether a statement is true of two images. Each fusion layer is a pair of layers (paper §5.4)."""

    head = "nlvr"

    @staticmethod
    def adapt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Starts both layers of a pair from the fusion layer of a model for single images (docs/published.md)."""
        return paired(state)


def classify(model: ALBEF, batch: Batch) -> Logits:
    """Class logits of each text about its image, or about its two images."""
    text = model.encode_text(batch.ids, batch.mask)
    return model.classify(text.tokens, batch.mask, model.image_memory(model.encode_image(batch.visuals)))


def paired(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in which each single fusion layer becomes a pair of equal layers. All else stays the same."""
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
