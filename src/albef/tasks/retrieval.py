"""Fine-tuning for retrieval and grounding: ITC and ITM on images with several texts (paper §5.1)."""

from __future__ import annotations

import torch
from torch import Tensor

from albef.config import Config
from albef.data.records import Batch
from albef.model.albef import ALBEF
from albef.momentum import FeatureQueue, MomentumTeacher
from albef.tasks.base import Negatives, Output, Stage, Targets, Task
from albef.tasks.contrast import align, counts_of, keys_of, match


class Retrieval(Task):
    """L = L_itc + L_itm, with all texts of an image as its positives (paper §5.1)."""

    student: ALBEF
    teacher: MomentumTeacher[ALBEF]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config.task
        self.student = ALBEF(config.model, ("contrast", "itm"))
        self.teacher = MomentumTeacher(self.student, config.task.momentum, config.task.teacher_dropout)
        self.queue = FeatureQueue(
            config.task.queue_size, config.model.feature_width, config.task.random_queue
        )

    @torch.no_grad()
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The teacher's features."""
        teacher = self.teacher.module
        _, keys = keys_of(teacher, batch)
        return Targets(counts_of(keys, True, self.config.mask_same_pairs), keys=keys)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: Negatives | None = None) -> Output:
        """The student's losses. Negatives are drawn unless given."""
        student = self.student
        aligned = align(
            student,
            self.queue,
            batch,
            targets,
            stage,
            same_image=True,
            same_caption=self.config.mask_same_pairs,
        )
        losses: dict[str, Tensor] = {"itc": aligned.loss}
        measures = dict(aligned.measures)
        if stage.fuse:
            memory = student.image_memory(aligned.image)
            losses["itm"], measures["itm_accuracy"] = match(student, aligned, memory, targets, stage, drawn)
        return Output(losses, targets.keys, measures)

    def update(self, output: Output) -> None:
        """Keeps the temperature in range, moves the teacher, and pushes to the queue."""
        self.student.clamp_temperature()
        self.teacher.update(self.student)
        assert output.keys is not None
        self.queue.push(output.keys)
