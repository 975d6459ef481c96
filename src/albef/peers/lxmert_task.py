"""LXMERT's training: six objectives at once in pre-training, and tasks for its heads (Tan and Bansal, EMNLP 2019)."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from albef import objectives
from albef.data.records import Batch
from albef.peers import region_objectives
from albef.peers.lxmert import LXMERT
from albef.peers.region_draws import Matching, sample_matching, sample_other, sample_shown_features
from albef.peers.region_tasks import RegionTask, learn_answers, learn_classes
from albef.tasks.base import Negatives, Output, Stage, Targets

NOT_PREDICTED = -1
PRETRAINED = ("itm", "mlm", "regions", "answers")
# Of the losses of regions. A constant of the published code, whatever share of the regions is hidden.
REGION_SCALE = 1 / 0.15


class LxmertTask(RegionTask[LXMERT]):
    """A task that trains an LXMERT."""

    model = LXMERT


class LxmertPretrain(LxmertTask):
    """Masked words, hidden regions, matching and answers, in every step and on every pair (LXMERT, §3.1).

    Half of the images get the text of another image of the batch (published: of all data). All losses but that of
    answers are counted there too. The losses of objects and attributes are those of all regions, hidden or not.
    """

    heads = PRETRAINED

    @torch.no_grad()
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """Which image gets which text, and the number of what is to be predicted then."""
        assert batch.region_mask is not None
        drawn = sample_matching(batch.image_id)
        counts = {
            "pairs": torch.ones_like(drawn.matched).sum(),
            "mlm": (word_labels(batch, drawn) != NOT_PREDICTED).sum(),
            "regions": batch.region_mask.sum(),
            "answer": (answer_labels(batch, drawn) != NOT_PREDICTED).sum(),
        }
        return Targets({name: count.float() for name, count in counts.items()}, drawn=drawn)

    def forward(
        self,
        batch: Batch,
        targets: Targets,
        stage: Stage,
        drawn: Float[Tensor, "batch regions width"] | None = None,
    ) -> Output:
        """The six losses. `drawn` are the features that the model is shown in place of the batch's."""
        student, regions, matching = self.student, batch.visual, targets.drawn
        assert isinstance(matching, Matching)
        assert batch.hidden_regions is not None
        if drawn is None:
            drawn = sample_shown_features(regions.features, batch.hidden_regions, regions.mask)
        memory = student.image_memory(student.encode_image(regions._replace(features=drawn)))
        ids, mask = batch.masked_ids[matching.image], batch.mask[matching.image]
        fused = student.fuse(student.encode_text(ids, mask).tokens, mask, memory)
        losses, measures = self.of_words(batch, targets, fused.text, matching)
        return Output(losses | self.of_regions(batch, targets, fused.regions), None, measures)

    def of_words(
        self, batch: Batch, targets: Targets, states: Float[Tensor, "batch length width"], matching: Matching
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The losses of words, matching and answers, and measures of them."""
        student, counts = self.student, targets.counts
        assert student.itm_head is not None
        assert student.classifier is not None
        labels, answers = word_labels(batch, matching).flatten(), answer_labels(batch, matching)
        positions, asked = ((found != NOT_PREDICTED).nonzero()[:, 0] for found in (labels, answers))
        words = student.predict_words(states.flatten(0, 1)[positions])
        pooled = student.pooler(states)
        matched, answered = student.itm_head(pooled), student.classifier(pooled[asked])
        losses = {
            "mlm": objectives.mlm_loss(words, None, labels[positions], 0.0, counts["mlm"]),
            "itm": objectives.itm_loss(
                matched, matching.matched, torch.ones_like(pooled[:, 0]), counts["pairs"]
            ),
            "answer": objectives.classification_loss(answered, None, answers[asked], 0.0, counts["answer"]),
        }
        measures = {
            "mi_mlm": objectives.mlm_bound(words.detach(), labels[positions]),
            "itm_accuracy": (matched.detach().argmax(1) == matching.matched).float().mean(),
        }
        return losses, measures

    def of_regions(
        self, batch: Batch, targets: Targets, states: Float[Tensor, "batch regions width"]
    ) -> dict[str, Tensor]:
        """The losses of objects, attributes and features. At padding the detector's confidence is 0."""
        assert self.student.region_head is not None
        assert batch.region_features is not None
        assert batch.hidden_regions is not None
        assert batch.object_ids is not None
        assert batch.object_confidences is not None
        assert batch.attribute_ids is not None
        assert batch.attribute_confidences is not None
        count, hidden = targets.counts["regions"], batch.hidden_regions.flatten().nonzero()[:, 0]
        scores = self.student.region_head(states.flatten(0, 1), hidden)
        losses = {
            "objects": region_objectives.detected_class_loss(
                scores.objects, batch.object_ids.flatten(), batch.object_confidences.flatten(), count
            ),
            "attributes": region_objectives.detected_class_loss(
                scores.attributes, batch.attribute_ids.flatten(), batch.attribute_confidences.flatten(), count
            ),
            "features": region_objectives.smooth_feature_loss(
                scores.features, batch.region_features.flatten(0, 1)[hidden], count
            ),
        }
        return {name: REGION_SCALE * loss for name, loss in losses.items()}


class LxmertVQA(LxmertTask):
    """Scores of listed answers to questions."""

    heads = ("answers",)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: None = None) -> Output:
        """The summed binary cross-entropies, and the mean score of the best answers."""
        text, memory = self.encoded(batch)
        return learn_answers(self.student.answer(text, batch.mask, memory), batch, targets)


class LxmertNLVR(LxmertTask):
    """Whether a sentence about two images is true, from the pooled vectors of the sentence with either."""

    heads = ("nlvr",)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: None = None) -> Output:
        """The cross-entropy, and the accuracy."""
        text, memory = self.encoded_pairs(batch)
        return learn_classes(self.student.classify(text, batch.mask, memory), batch, targets)


class LxmertRetrieval(LxmertTask):
    """Matching of each pair, of its text with another image, and of another text with its image.

    Nothing is published for retrieval: this loss is ours. Negatives are drawn from the batch, uniformly.
    """

    heads = ("itm",)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: Negatives | None = None) -> Output:
        """The matching loss. Negatives are drawn unless given."""
        text, memory = self.encoded(batch)
        own = torch.arange(len(batch), device=batch.ids.device)
        drawn = drawn or Negatives(sample_other(batch.image_id), sample_other(batch.image_id))
        texts, images = torch.cat([own, own, drawn.text]), torch.cat([own, drawn.image, own])
        matched = (batch.image_id[texts] == batch.image_id[images]).long()
        logits = self.student.match(text.index_select(0, texts), batch.mask[texts], memory, images)
        count = 3 * targets.counts["pairs"]
        loss = objectives.itm_loss(logits, matched, torch.ones_like(logits[:, 0]), count)
        accuracy = (logits.detach().argmax(1) == matched).float().mean()
        return Output({"itm": loss}, None, {"itm_accuracy": accuracy})


def word_labels(batch: Batch, matching: Matching) -> Int[Tensor, "batch length"]:
    """The words to predict in the text that each image gets. Elsewhere `NOT_PREDICTED`."""
    labels = torch.full_like(batch.ids, NOT_PREDICTED)
    labels.view(-1)[batch.mlm_positions] = batch.mlm_labels
    return labels[matching.image]


def answer_labels(batch: Batch, matching: Matching) -> Int[Tensor, " batch"]:
    """The answer to the text that each image gets, if it has one and belongs to the image. Else `NOT_PREDICTED`."""
    if batch.listed_answer is None:
        return torch.full_like(matching.matched, NOT_PREDICTED)
    return torch.where(matching.matched == 1, batch.listed_answer[matching.image], NOT_PREDICTED)
