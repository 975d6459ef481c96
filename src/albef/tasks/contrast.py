"""Align (ITC), then match (ITM): shared by pre-training, retrieval and grounding (paper §3.2)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from albef import objectives
from albef.data.records import Batch
from albef.model.albef import ALBEF
from albef.model.text_encoder import KeyValues
from albef.model.verbs import Encoding
from albef.momentum import FeatureQueue
from albef.tasks.base import Negatives, Stage, Targets


class Aligned(NamedTuple):
    """Images and texts encoded, and their contrastive loss."""

    loss: Float[Tensor, ""]
    image: Encoding
    text: Encoding
    i2t_logits: Float[Tensor, "batch bank"]  # the first columns are the whole batch
    t2i_logits: Float[Tensor, "batch bank"]
    same: Bool[Tensor, "batch bank"]  # same image or same caption: never a negative
    measures: dict[str, Float[Tensor, ""]]


def same_pairs(batch: Batch, same_image: bool, same_caption: bool) -> Bool[Tensor, "batch batch"]:
    """Which pairs are no negatives of each other: each of itself, and as asked those of one image or one caption."""
    same = torch.eye(len(batch), dtype=torch.bool, device=batch.ids.device)
    if same_image:
        same = same | (batch.image_id[:, None] == batch.image_id)
    if same_caption:
        same = same | (batch.caption_id[:, None] == batch.caption_id)
    return same


def counts_of(same: Bool[Tensor, "batch batch"]) -> dict[str, Float[Tensor, ""]]:
    """The counts of ITC and ITM: all pairs, and all pairs with their usable negatives."""
    pairs = torch.full((), float(len(same)), device=same.device)
    return {"itc": pairs, "itm": pairs + 2 * (~same).any(1).sum()}


def unaligned(student: ALBEF, batch: Batch, same: Bool[Tensor, "batch batch"]) -> Aligned:
    """Images and texts encoded without ITC. All pairs count as equally similar, so negatives are random."""
    image = student.encode_image(batch.visual)
    text = student.encode_text(batch.ids, batch.mask)
    alike = image.feature.new_zeros(same.shape)
    return Aligned(alike.sum(), image, text, alike, alike, same, {})


def align(
    student: ALBEF,
    queue: FeatureQueue,
    batch: Batch,
    targets: Targets,
    stage: Stage,
    same_image: bool,
    same_caption: bool,
) -> Aligned:
    """ITC of the student's features with the teacher's features of the whole batch and the queue (§3.2–3.3).

    With `same_image`, all pairs of an image are positives. With `same_caption`, other pairs with the same caption are
    left out.
    """
    keys, first_row = targets.keys, targets.first_row
    assert keys is not None
    image = student.encode_image(batch.visual)
    text = student.encode_text(batch.ids, batch.mask)
    image_bank, text_bank = (keys.image, queue.image), (keys.text, queue.text)
    bank_image_id = torch.cat([keys.image_id, queue.image_id])
    bank_caption_id = torch.cat([keys.caption_id, queue.caption_id])
    rows = slice(first_row, first_row + len(batch))

    columns = torch.arange(len(bank_image_id), device=bank_image_id.device)
    own = columns[rows, None] == columns
    outside = own.new_ones(len(keys.image_id))
    outside[targets.bank] = False
    absent = torch.cat([outside, queue.empty()])
    positive = own | (batch.image_id[:, None] == bank_image_id) & ~absent if same_image else own
    same = positive | (batch.caption_id[:, None] == bank_caption_id) if same_caption else positive
    excluded = absent | (same & ~positive)

    def logits(query: Tensor, candidates: tuple[Tensor, Tensor]) -> Tensor:
        return objectives.similarity(query, candidates, student.temperature, excluded)

    i2t, t2i = logits(image.feature, text_bank), logits(text.feature, image_bank)
    with torch.no_grad():
        teacher_i2t = logits(keys.image[rows], text_bank)
        teacher_t2i = logits(keys.text[rows], image_bank)
        hard = objectives.hard_targets(positive)
        measures = {
            "mi_i2t": objectives.infonce_bound(i2t, hard),
            "mi_t2i": objectives.infonce_bound(t2i, hard),
            "disagreement": objectives.disagreement(teacher_i2t, positive),
            "temperature": student.temperature.detach().clone()[
                0
            ],  # a copy: the parameter may be sharded again
        }
    alpha = stage.alpha_of("itc")
    loss = objectives.itc_loss(
        i2t,
        t2i,
        objectives.soft_targets(teacher_i2t, hard, alpha),
        objectives.soft_targets(teacher_t2i, hard, alpha),
        targets.counts["itc"],
    )
    return Aligned(loss, image, text, i2t, t2i, same, measures)


def draw_negatives(
    aligned: Aligned, first_row: int, hardness: float
) -> tuple[Negatives, Bool[Tensor, "batch 2"]]:
    """A negative image for each text and a negative text for each image, from this batch (§3.2, hard negatives).

    The second result tells which draws are usable. A row without any other image or caption has none.
    """
    batch = len(aligned.same)
    columns = slice(first_row, first_row + batch)
    allowed = ~aligned.same[:, columns]

    def draw(logits: Tensor) -> Int[Tensor, " batch"]:
        chances = objectives.negative_probabilities(logits.detach()[:, columns], allowed, hardness)
        return objectives.sample_negatives(chances)

    usable = allowed.any(1)[:, None].expand(-1, 2)
    return Negatives(image=draw(aligned.t2i_logits), text=draw(aligned.i2t_logits)), usable


def match(
    student: ALBEF,
    aligned: Aligned,
    memory: KeyValues,
    targets: Targets,
    stage: Stage,
    drawn: Negatives | None,
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """ITM loss and accuracy over the positives and two negatives for each, in one fusion pass (§3.2).

    Negatives come from the pairs of this forward pass, since only these are encoded here.
    """
    chosen, usable = draw_negatives(aligned, targets.first_row, stage.hardness)
    negatives = drawn or chosen
    tokens, mask = aligned.text.tokens, aligned.text.mask
    assert mask is not None
    each = torch.arange(len(tokens), device=tokens.device)
    # Pairs: (text, its image), (text, another image), (another text, image).
    text_index = torch.cat([each, each, negatives.text])
    image_index = torch.cat([each, negatives.image, each])
    # Not tokens[text_index]: several threads of a CPU add its gradient up in another order each time.
    logits = student.match(tokens.index_select(0, text_index), mask[text_index], memory, image_index)
    matched = torch.cat([torch.ones_like(each), torch.zeros_like(each), torch.zeros_like(each)])
    weight = torch.cat([torch.ones_like(usable[:, 0]), usable[:, 0], usable[:, 1]]).to(
        aligned.i2t_logits.dtype
    )
    correct = ((logits.argmax(1) == matched) * weight).sum() / weight.sum()
    return objectives.itm_loss(logits, matched, weight, targets.counts["itm"]), correct.detach()
