"""Pre-training: ITC, ITM and MLM with momentum distillation (paper §3.2–3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from albef import objectives
from albef.config import Config
from albef.data.records import Batch
from albef.model.albef import ALBEF
from albef.momentum import FeatureQueue, MomentumTeacher
from albef.tasks.base import Negatives, Output, Stage, Targets, Task
from albef.tasks.contrast import align, counts_of, keys_of, match


class Pretrain(Task):
    """L = L_itc + L_itm + L_mlm (§3.2, eq. 5)."""

    student: ALBEF
    teacher: MomentumTeacher[ALBEF]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config.task
        heads = ("contrast", *(name for name in ("itm", "mlm") if name in config.task.losses))
        self.student = ALBEF(config.model, heads)
        self.teacher = MomentumTeacher(self.student, config.task.momentum, config.task.teacher_dropout)
        self.queue = FeatureQueue(
            config.task.queue_size, config.model.feature_width, config.task.random_queue
        )

    @torch.no_grad()
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The teacher's features, and its states at the masked positions."""
        teacher, masked = self.teacher.module, self.config.mask_same_pairs
        image, keys = keys_of(teacher, batch)
        counts = counts_of(keys, same_image=masked, same_caption=masked)
        counts["mlm"] = torch.full_like(counts["itc"], len(batch.mlm_labels))
        states = None
        if stage.fuse and stage.alpha > 0 and "mlm" in self.config.losses:
            memory = teacher.image_memory(image)
            states = teacher.masked_states(batch.masked_ids, batch.mask, memory, batch.mlm_positions)
        return Targets(counts, states=states, keys=keys)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: Negatives | None = None) -> Output:
        """The student's losses. Negatives are drawn unless given."""
        student, losses, masked = self.student, self.config.losses, self.config.mask_same_pairs
        aligned = align(student, self.queue, batch, targets, stage, same_image=masked, same_caption=masked)
        found, measures = {"itc": aligned.loss}, dict(aligned.measures)
        if stage.fuse and ("itm" in losses or "mlm" in losses):
            memory = student.image_memory(aligned.image)
        if stage.fuse and "itm" in losses:
            found["itm"], measures["itm_accuracy"] = match(student, aligned, memory, targets, stage, drawn)
        if stage.fuse and "mlm" in losses:
            states = student.masked_states(batch.masked_ids, batch.mask, memory, batch.mlm_positions)
            words = student.predict_words(states)
            found["mlm"] = objectives.mlm_loss(
                words, self.taught(targets), batch.mlm_labels, stage.alpha, targets.counts["mlm"]
            )
            measures["mi_mlm"] = objectives.mlm_bound(words.detach(), batch.mlm_labels)
        chosen: dict[str, Tensor] = {name: loss for name, loss in found.items() if name in losses}
        return Output(chosen, targets.keys, measures)

    @torch.no_grad()
    def taught(self, targets: Targets) -> Tensor | None:
        """The teacher's logits of the masked words, if they are used."""
        return None if targets.states is None else self.teacher.module.predict_words(targets.states)

    def update(self, output: Output) -> None:
        """Keeps the temperature in range, moves the teacher, and pushes to the queue."""
        self.student.clamp_temperature()
        self.teacher.update(self.student)
        assert output.keys is not None
        self.queue.push(output.keys)
