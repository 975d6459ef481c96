"""UNITER's training: one objective per step in pre-training, and a task for each of its heads."""

from __future__ import annotations

import random
from collections.abc import Mapping

import torch
from torch import Tensor

from albef import objectives
from albef.config import Config
from albef.data.records import Batch
from albef.peers import region_objectives
from albef.peers.region_draws import Matching, sample_matching, sample_other
from albef.peers.region_tasks import RegionTask, learn_answers, learn_classes
from albef.peers.uniter import PRETRAINING, UNITER
from albef.tasks.base import Negatives, Output, Stage, Targets

# How often each objective is drawn, of 11 times: as published for all four data sets.
MIX = {"itm": 3, "mlm": 4, "features": 2, "objects": 2}
ALIGNMENT_WEIGHT = 0.1  # of word–region alignment beside ITM, as published
MARGIN = 0.2  # of the ranking loss, as published


class UniterTask(RegionTask[UNITER]):
    """A task that trains a UNITER."""

    model = UNITER


class UniterPretrain(UniterTask):
    """One objective per step: ITM with word–region alignment, masked words, or hidden regions (UNITER, §3.2).

    Words are hidden while all regions are visible, and regions while all words are.
    """

    heads = PRETRAINING

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.seed = config.train.seed

    @torch.no_grad()
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The number of pairs, and of what is to be predicted in them."""
        counts = super().prepare(batch, stage).counts
        counts["mlm"] = torch.full_like(counts["pairs"], len(batch.mlm_labels))
        if batch.hidden_regions is not None:
            counts["regions"] = batch.hidden_regions.sum().float()
        return Targets(counts)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: Matching | None = None) -> Output:
        """The loss of this step's objective. The images of ITM are drawn unless given."""
        chosen = sample_objective(self.seed, stage.step, with_classes=batch.region_classes is not None)
        if chosen == "itm":
            return self.match(batch, targets, drawn or sample_matching(batch.image_id))
        if chosen == "mlm":
            return self.words(batch, targets)
        return self.regions(batch, targets, chosen)

    def match(self, batch: Batch, targets: Targets, drawn: Matching) -> Output:
        """ITM, and word–region alignment of the same states."""
        text, memory = self.encoded(batch)
        memory, count = memory.select(drawn.image), targets.counts["pairs"]
        states = self.student.fuse(text, batch.mask, memory)
        logits = self.student.judge(states)
        words, regions = states.split([batch.mask.shape[1], memory.mask.shape[1]], 1)
        cost = region_objectives.transport_cost(words, regions, batch.mask, memory.mask)
        plan = region_objectives.transport_plan(cost, batch.mask, memory.mask)
        distance = region_objectives.transport_distance(cost, plan)
        losses = {
            "itm": objectives.itm_loss(logits, drawn.matched, torch.ones_like(distance), count),
            "alignment": ALIGNMENT_WEIGHT * region_objectives.alignment_loss(distance, drawn.matched, count),
        }
        accuracy = (logits.detach().argmax(1) == drawn.matched).float().mean()
        return Output(losses, None, {"itm_accuracy": accuracy})

    def words(self, batch: Batch, targets: Targets) -> Output:
        """Masked words."""
        memory = self.student.image_memory(self.student.encode_image(batch.visual))
        states = self.student.masked_states(batch.masked_ids, batch.mask, memory, batch.mlm_positions)
        logits, count = self.student.predict_words(states), targets.counts["mlm"]
        loss = objectives.mlm_loss(logits, None, batch.mlm_labels, 0.0, count)
        return Output(
            {"mlm": loss}, None, {"mi_mlm": objectives.mlm_bound(logits.detach(), batch.mlm_labels)}
        )

    def regions(self, batch: Batch, targets: Targets, chosen: str) -> Output:
        """Hidden regions: their features, or their classes as the detector gave them."""
        hidden, count = batch.hidden_regions, targets.counts["regions"]
        assert hidden is not None
        text = self.student.encode_text(batch.ids, batch.mask).tokens
        memory = self.student.image_memory(self.student.encode_image(batch.visual, hidden))
        positions = hidden.flatten().nonzero()[:, 0]
        states = self.student.region_states(text, batch.mask, memory, positions)
        if chosen == "features":
            features = batch.visual.features.flatten(0, 1)[positions]
            predicted = self.student.predict_features(states)
            return Output(
                {chosen: region_objectives.region_feature_loss(predicted, features, count)}, None, {}
            )
        assert batch.region_classes is not None
        soft = batch.region_classes.flatten(0, 1)[positions]
        logits = self.student.predict_objects(states)
        accuracy = (logits.detach().argmax(1) == region_objectives.likeliest_objects(soft)).float().mean()
        loss = region_objectives.region_class_divergence(logits, soft, count)
        return Output({chosen: loss}, None, {"objects_accuracy": accuracy})


class UniterRetrieval(UniterTask):
    """A pair is to score higher than its text with another image, and than another text with its image.

    Both are drawn from the batch. The published code draws them from all data.
    """

    heads = ("itm", "rank")

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: Negatives | None = None) -> Output:
        """The ranking loss. Negatives are drawn unless given."""
        text, memory = self.encoded(batch)
        own = torch.arange(len(batch), device=batch.ids.device)
        drawn = drawn or Negatives(sample_other(batch.image_id), sample_other(batch.image_id))
        texts, images = torch.cat([own, own, drawn.text]), torch.cat([own, drawn.image, own])
        scores = self.student.match(text.index_select(0, texts), batch.mask[texts], memory, images)[:, 1]
        matched, *others = scores.chunk(3)
        negatives = torch.stack(others, 1)
        count = 2 * targets.counts["pairs"]
        loss = region_objectives.ranking_loss(matched, negatives, MARGIN, count)
        accuracy = (matched.detach()[:, None] > negatives.detach()).float().mean()
        return Output({"ranking": loss}, None, {"ranking_accuracy": accuracy})

    @staticmethod
    def adapt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The score starts as the ITM logit of a match, unless the weights have one."""
        found = dict(state)
        for kind in ("weight", "bias"):
            if f"itm_head.{kind}" in state:
                found.setdefault(f"rank_head.{kind}", state[f"itm_head.{kind}"][1:].clone())
        return found


class UniterVQA(UniterTask):
    """Scores of listed answers to questions."""

    heads = ("answers",)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: None = None) -> Output:
        """The summed binary cross-entropies, and the mean score of the best answers."""
        text, memory = self.encoded(batch)
        return learn_answers(self.student.answer(text, batch.mask, memory), batch, targets)


class UniterEntailment(UniterTask):
    """Three classes of a sentence, by the loss of listed answers, as published."""

    heads = ("entailment",)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: None = None) -> Output:
        """The summed binary cross-entropies, and the accuracy."""
        assert batch.label is not None
        text, memory = self.encoded(batch)
        logits = self.student.classify(text, batch.mask, memory)
        hard = torch.nn.functional.one_hot(batch.label, logits.shape[1]).to(logits.dtype)
        loss = region_objectives.listed_answer_loss(logits, hard, targets.counts["pairs"])
        accuracy = (logits.detach().argmax(1) == batch.label).float().mean()
        return Output({"classification": loss}, None, {"accuracy": accuracy})


class UniterNLVR(UniterTask):
    """Whether a sentence about two images is true, by attention between two sequences (the published recipe)."""

    heads = ("paired_attention",)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: None = None) -> Output:
        """The cross-entropy, and the accuracy."""
        text, memory = self.encoded_pairs(batch)
        return learn_classes(self.student.classify(text, batch.mask, memory), batch, targets)

    @staticmethod
    def adapt(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The type of the second image starts as that of the first, unless the weights have one."""
        name = "text_encoder.types.weight"
        if name not in state or len(state[name]) > 2:
            return dict(state)
        return {**state, name: torch.cat([state[name], state[name][1:]])}


def sample_objective(seed: int, step: int, with_classes: bool) -> str:
    """The objective of a step, drawn as often as `MIX` says. All processes and all parts of a batch draw the same.

    Without classes from the detector, "objects" is never drawn.
    """
    names = [name for name in MIX if with_classes or name != "objects"]
    return random.Random(f"{seed} {step}").choices(names, [MIX[name] for name in names])[0]
