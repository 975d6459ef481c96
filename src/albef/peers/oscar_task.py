"""OSCAR's training: masked words and tags with the contrast of true and polluted, and a task for each of its heads."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from albef import objectives
from albef.data.records import Batch
from albef.data.regions import Tags
from albef.peers.oscar import OSCAR
from albef.peers.region_draws import has_other, sample_other
from albef.peers.region_tasks import RegionTask, learn_answers, learn_classes
from albef.tasks.base import Output, Stage, Targets

# The share of examples that get another caption, by the number of classes. Half of all examples stay true, and the
# rest get other tags. As published.
OTHER_CAPTION = {2: 0.0, 3: 0.25}
NOT_PREDICTED = -100


class Pollution(NamedTuple):
    """Whose caption and whose tags each image of a batch gets, and its class: 0 if both are its own."""

    text: Int[Tensor, " batch"]
    tags: Int[Tensor, " batch"]
    label: Int[Tensor, " batch"]


class Negatives(NamedTuple):
    """A pair that does not match for each pair of a batch. An image brings its own tags."""

    text: Int[Tensor, " batch"]
    image: Int[Tensor, " batch"]


class Masked(NamedTuple):
    """Masked captions and tags, and what is to be predicted in them."""

    ids: Int[Tensor, "batch length"]
    mask: Bool[Tensor, "batch length"]
    tags: Tags
    labels: Int[Tensor, "batch words"]  # of captions, then of tags


class OscarTask(RegionTask[OSCAR]):
    """A task that trains an OSCAR."""

    model = OSCAR


class OscarPretrain(OscarTask):
    """L = L_mlm + L_pollution, in one forward pass (Oscar, §3; VinVL, §3.1).

    Other captions and tags are drawn from the batch. The published code draws them from all data.
    """

    heads = ("mlm", "pollution")

    @torch.no_grad()
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The drawn pollution, the number of pairs, and of what is to be predicted in them."""
        drawn = sample_pollution(batch.image_id, self.student.config.pollution_classes)
        counts = super().prepare(batch, stage).counts
        counts["mlm"] = (self.masked(batch, drawn).labels != NOT_PREDICTED).sum().float()
        return Targets(counts, drawn=drawn)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: Pollution | None = None) -> Output:
        """Both losses. Pollution is that of `prepare` unless given."""
        student, pollution = self.student, drawn or targets.drawn
        given = self.masked(batch, pollution)
        memory = student.image_memory(student.encode_image(batch.visual)).with_tags(given.tags)
        text = student.encode_text(given.ids, given.mask).tokens
        every = given.labels.flatten()
        predicted = (every != NOT_PREDICTED).nonzero()[:, 0]
        labels, firsts = (
            every[predicted],
            torch.arange(len(batch), device=every.device) * given.labels.shape[1],
        )
        states = student.states_at(text, given.mask, memory, torch.cat([firsts, predicted]))
        judged = student.judge(student.pooler(states[: len(batch), None]))
        words = student.predict_words(states[len(batch) :])
        losses = {
            "mlm": objectives.mlm_loss(words, None, labels, 0.0, targets.counts["mlm"]),
            "pollution": objectives.classification_loss(
                judged, None, pollution.label, 0.0, targets.counts["pairs"]
            ),
        }
        measures = {
            "mi_mlm": objectives.mlm_bound(words.detach(), labels),
            "pollution_accuracy": (judged.detach().argmax(1) == pollution.label).float().mean(),
        }
        return Output(losses, None, measures)

    def masked(self, batch: Batch, drawn: Pollution) -> Masked:
        """The batch as the model sees it. Of tags that are cut, nothing is to be predicted."""
        assert batch.masked_tag_ids is not None
        assert batch.tag_mask is not None
        assert batch.tag_labels is not None
        words = batch.ids.new_full((batch.ids.numel(),), NOT_PREDICTED)
        words[batch.mlm_positions] = batch.mlm_labels
        mask = batch.mask[drawn.text]
        tags = Tags(batch.masked_tag_ids, batch.tag_mask).select(drawn.tags)
        tags = tags.cut(self.student.config.max_tokens - mask.sum(1))
        before_sep = F.pad(tags.mask[:, 1:], (0, 1))
        tag_labels = torch.where(before_sep, batch.tag_labels[drawn.tags], NOT_PREDICTED)
        labels = torch.cat([words.view_as(batch.ids)[drawn.text], tag_labels], 1)
        return Masked(batch.masked_ids[drawn.text], mask, tags, labels)


class OscarRetrieval(OscarTask):
    """Matching of each pair and of one negative: another caption for the image, or another image with its tags.

    Both are drawn from the batch. The published code draws them from all data.
    """

    heads = ("itm",)

    @torch.no_grad()
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The number of pairs and negatives."""
        pairs = super().prepare(batch, stage).counts["pairs"]
        return Targets({"itm": pairs + has_other(batch.image_id).sum()})

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: Negatives | None = None) -> Output:
        """The loss, and the accuracy. Negatives are drawn unless given."""
        text, memory = self.encoded(batch)
        negatives = drawn or sample_pair_negatives(batch.image_id)
        own = torch.arange(len(batch), device=text.device)
        texts, images = torch.cat([own, negatives.text]), torch.cat([own, negatives.image])
        logits = self.student.match(text.index_select(0, texts), batch.mask[texts], memory, images)
        matched = torch.cat([torch.ones_like(own), torch.zeros_like(own)])
        weight = torch.cat([torch.ones_like(own), has_other(batch.image_id).long()]).to(logits.dtype)
        loss = objectives.itm_loss(logits, matched, weight, targets.counts["itm"])
        accuracy = (logits.detach().argmax(1) == matched).float().mean()
        return Output({"itm": loss}, None, {"itm_accuracy": accuracy})


class OscarVQA(OscarTask):
    """Scores of listed answers to questions."""

    heads = ("answers",)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: None = None) -> Output:
        """The summed binary cross-entropies, and the mean score of the best answers."""
        text, memory = self.encoded(batch)
        return learn_answers(self.student.answer(text, batch.mask, memory), batch, targets)


class OscarNLVR(OscarTask):
    """Whether a statement is true of two images, which it sees without their tags, as in the published command."""

    heads = ("nlvr",)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: None = None) -> Output:
        """The loss and the accuracy."""
        text, memory = self.encoded_pairs(batch)
        return learn_classes(self.student.classify(text, batch.mask, memory), batch, targets)


def sample_pollution(
    image_id: Int[Tensor, " batch"], classes: int, generator: torch.Generator | None = None
) -> Pollution:
    """True with probability ½, else the tags (class 1) or the caption (the last class) of another image.

    With two classes only tags are polluted, with three a quarter of all captions too. A row stays true if the batch has
    no other image.
    """
    own = torch.arange(len(image_id), device=image_id.device)
    other = sample_other(image_id, generator)
    drawn = torch.rand(image_id.shape, generator=generator, device=image_id.device)
    is_polluted = (drawn <= 0.5) & (other != own)
    has_other_caption = is_polluted & (drawn < OTHER_CAPTION[classes])
    has_other_tags = is_polluted & ~has_other_caption
    label = has_other_tags.long() + (classes - 1) * has_other_caption.long()
    return Pollution(
        torch.where(has_other_caption, other, own), torch.where(has_other_tags, other, own), label
    )


def sample_pair_negatives(
    image_id: Int[Tensor, " batch"], generator: torch.Generator | None = None
) -> Negatives:
    """With probability ½ the caption of another image for each image, else another image for each caption."""
    own = torch.arange(len(image_id), device=image_id.device)
    other = sample_other(image_id, generator)
    coin = torch.rand(image_id.shape, generator=generator, device=image_id.device) < 0.5
    return Negatives(torch.where(coin, other, own), torch.where(coin, own, other))
