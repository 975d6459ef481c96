"""Pre-training: ITC, ITM and MLM with momentum distillation (paper §3.2–3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from albef import objectives
from albef.config import Config, losses_of
from albef.data.records import Batch
from albef.model.albef import ALBEF
from albef.momentum import FeatureQueue, Keys, MomentumTeacher
from albef.tasks.base import Negatives, Output, Stage, Targets, Task
from albef.tasks.contrast import Aligned, align, counts_of, match, same_pairs, unaligned

HEADS = {"itc": "contrast", "itm": "itm", "mlm": "mlm"}  # by loss


class Pretrain(Task):
    """L = L_itc + L_itm + L_mlm (§3.2, eq. 5), or only those of them that the recipe names.

    Without ITC there is no queue, and the negatives of ITM are random.
    """

    student: ALBEF
    teacher: MomentumTeacher[ALBEF]

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config.task
        self.losses = losses_of(config.task.name, config.task.losses)
        self.same_image = self.same_caption = config.task.mask_same_pairs  # never a negative
        self.student = ALBEF(config.model, tuple(HEADS[loss] for loss in self.losses))
        self.teacher = MomentumTeacher(self.student, config.task.momentum, config.task.teacher_dropout)
        self.queue: FeatureQueue | None = None
        if "itc" in self.losses:
            self.queue = FeatureQueue(
                config.task.queue_size, config.model.feature_width, config.task.random_queue
            )

    @torch.no_grad()
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The teacher's features for ITC, and its states at the masked positions if they are used."""
        teacher = self.teacher.module
        counts = counts_of(same_pairs(batch, self.same_image, self.same_caption))
        counts["mlm"] = torch.full_like(counts["itc"], len(batch.mlm_labels))
        words = stage.fuse and "mlm" in self.losses and stage.alpha_of("mlm") > 0
        keys = states = None
        if "itc" in self.losses or words:
            image = teacher.encode_image(batch.visual)
        if "itc" in self.losses:
            text = teacher.encode_text(batch.ids, batch.mask)
            keys = Keys(image.feature, text.feature, batch.image_id, batch.caption_id)
        if words:
            memory = teacher.image_memory(image)
            states = teacher.masked_states(batch.masked_ids, batch.mask, memory, batch.mlm_positions)
        return Targets(counts, states=states, keys=keys)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: Negatives | None = None) -> Output:
        """The student's losses. Negatives are drawn unless given."""
        student, losses = self.student, self.losses
        aligned = self.encoded(batch, targets, stage)
        found, measures = {"itc": aligned.loss}, dict(aligned.measures)
        if stage.fuse and losses != ("itc",):
            memory = student.image_memory(aligned.image)
        if stage.fuse and "itm" in losses:
            found["itm"], measures["itm_accuracy"] = match(student, aligned, memory, targets, stage, drawn)
        if stage.fuse and "mlm" in losses:
            states = student.masked_states(batch.masked_ids, batch.mask, memory, batch.mlm_positions)
            words, alpha = student.predict_words(states), stage.alpha_of("mlm")
            found["mlm"] = objectives.mlm_loss(
                words, self.taught(targets), batch.mlm_labels, alpha, targets.counts["mlm"]
            )
            measures["mi_mlm"] = objectives.mlm_bound(words.detach(), batch.mlm_labels)
        chosen: dict[str, Tensor] = {name: loss for name, loss in found.items() if name in losses}
        return Output(chosen, targets.keys, measures)

    def encoded(self, batch: Batch, targets: Targets, stage: Stage) -> Aligned:
        """Images and texts, with ITC if it is trained."""
        if self.queue is None:
            return unaligned(self.student, batch, same_pairs(batch, self.same_image, self.same_caption))
        return align(self.student, self.queue, batch, targets, stage, self.same_image, self.same_caption)

    @torch.no_grad()
    def taught(self, targets: Targets) -> Tensor | None:
        """The teacher's logits of the masked words, if they are used."""
        return None if targets.states is None else self.teacher.module.predict_words(targets.states)

    def update(self, output: Output) -> None:
        """Moves the teacher. With ITC, keeps the temperature in range, and pushes to the queue."""
        if self.queue is not None:
            self.student.clamp_temperature()
        self.teacher.update(self.student)
        if self.queue is not None:
            assert output.keys is not None
            self.queue.push(output.keys)
