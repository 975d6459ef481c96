"""CLIP's training: each image is to be most similar to its own text among all texts of the batch, and vice versa."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from albef import objectives
from albef.config import Config
from albef.data.records import Batch
from albef.distributed import all_gather, gathered, rank, world_size
from albef.momentum import Keys
from albef.peers.clip import CLIP
from albef.tasks.base import Output, Stage, Targets, Task


class ClipTask(Task):
    """The symmetric contrastive loss over the global batch (Radford et al., 2021, §2.3). There is no teacher.

    The candidates are the student's own features, and gradients flow into them too. If a process computes its share of
    the batch in parts, the features of all parts are computed beforehand without gradient.
    """

    student: CLIP
    teacher: None = None

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config.task
        self.in_parts = 0 < config.train.micro_batch_size < config.train.batch_size // world_size()
        self.student = CLIP(config.model)

    @torch.no_grad()
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The number of pairs, and if the batch comes in parts the features of this one."""
        counts = {"itc": torch.full((), float(len(batch)), device=batch.ids.device)}
        return Targets(counts, keys=self.keys(batch) if self.in_parts else None)

    def keys(self, batch: Batch) -> Keys:
        """The student's features of a batch, and the ids of its pairs."""
        image = self.student.encode_image(batch.visual).feature
        text = self.student.encode_text(batch.ids, batch.mask).feature
        return Keys(image, text, batch.image_id, batch.caption_id)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: None = None) -> Output:
        """The student's loss, and bounds on what the features tell of each other."""
        own, temperature, count = self.keys(batch), self.student.temperature, targets.counts["itc"]
        if targets.keys is None:
            bank, first = self.everyone(own)
        else:
            bank, first = put_in(own, targets)
        rows = slice(first, first + len(batch))
        if targets.keys is None:
            loss, measures = self.loss(bank, rows, temperature, count)
        else:
            # Features of a part are candidates for all rows, so their gradient is that of the whole loss. The parts'
            # losses and their gradients of the temperature add up.
            constant = bank._replace(image=bank.image.detach(), text=bank.text.detach())
            loss, measures = self.loss(constant, rows, temperature, count)
            whole, _ = self.loss(bank, slice(None), temperature.detach(), count)
            loss = loss + whole - whole.detach()
        measures["temperature"] = temperature.detach().clone()[0]
        return Output({"itc": loss}, None, measures)

    def everyone(self, own: Keys) -> tuple[Keys, int]:
        """The keys of all processes, with gradient, and where those of this process begin."""
        if not self.config.gather_batch:
            return own, 0
        both = gathered(torch.cat([own.image, own.text], 1))
        image, text = both.split(own.image.shape[1], 1)
        return Keys(image, text, *all_gather(own.image_id, own.caption_id)), rank() * len(own.image_id)

    def loss(
        self, bank: Keys, rows: slice, temperature: Float[Tensor, "1"], count: Float[Tensor, ""]
    ) -> tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]:
        """The loss of these rows of the bank against all of it, and bounds on the mutual information."""
        same = torch.eye(len(bank.image_id), dtype=torch.bool, device=bank.image_id.device)
        excluded = self.alike(bank)[rows] & ~same[rows] if self.config.mask_same_pairs else None
        i2t = objectives.similarity(bank.image[rows], (bank.text,), temperature, excluded)
        t2i = objectives.similarity(bank.text[rows], (bank.image,), temperature, excluded)
        own = torch.arange(len(same), device=same.device)[rows]
        hard = same[rows].to(i2t.dtype)
        measures = {
            "mi_i2t": objectives.infonce_bound(i2t.detach(), hard),
            "mi_t2i": objectives.infonce_bound(t2i.detach(), hard),
        }
        return objectives.contrastive_loss(i2t, t2i, own, count), measures

    def alike(self, bank: Keys) -> Bool[Tensor, "pairs pairs"]:
        """Which pairs show the same image or have the same caption. They are no negatives of each other."""
        same_image = bank.image_id[:, None] == bank.image_id
        return same_image | (bank.caption_id[:, None] == bank.caption_id)

    def update(self, output: Output) -> None:
        """Keeps the temperature in range."""
        self.student.clamp_temperature()


def put_in(own: Keys, targets: Targets) -> tuple[Keys, int]:
    """The prepared keys with those of this part in their place, and where they begin."""
    assert targets.keys is not None
    bank = Keys(*(tensor[targets.bank] for tensor in targets.keys))
    first = targets.first_row - (targets.bank.start or 0)
    end = first + len(own.image_id)
    parts = zip(bank, own, strict=True)
    return Keys(*(torch.cat([old[:first], new, old[end:]]) for old, new in parts)), first
