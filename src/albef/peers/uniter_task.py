"""UNITER's training: one objective per step in pre-training, and a task for each of its heads."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from albef import objectives
from albef.config import Config
from albef.data.records import Batch
from albef.peers import region_objectives
from albef.peers.region_draws import Matching, has_other, sample_matching, sample_other
from albef.peers.region_tasks import RegionTask, learn_answers, learn_classes
from albef.peers.uniter import PRETRAINING, UNITER
from albef.tasks.base import Output, Stage, Targets

# How often each objective is drawn, of 11 times: as published for all four data sets.
MIX = {"itm": 3, "mlm": 4, "features": 2, "objects": 2}
ALIGNMENT_WEIGHT = 0.1  # of word–region alignment beside ITM, as published
MARGIN = 0.2  # of the ranking loss, as published


class Rivals(NamedTuple):
    """Images that do not belong to each text of a batch, texts that do not belong to each image, and which to count."""

    image: Int[Tensor, "batch negatives"]
    text: Int[Tensor, "batch negatives"]
    usable: Bool[Tensor, "batch both"]  # of images, then of texts; False: the batch has no other


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
        # So that all parts and processes draw the same objective: it is above 0 if one of them lacks classes.
        counts["without_classes"] = torch.full_like(counts["pairs"], batch.region_classes is None)
        if batch.hidden_regions is not None:
            counts["regions"] = batch.hidden_regions.sum().float()
        return Targets(counts)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: Matching | None = None) -> Output:
        """The loss of this step's objective. The images of ITM are drawn unless given."""
        with_classes = targets.counts["without_classes"].item() == 0
        chosen = sample_objective(self.seed, stage.step, with_classes)
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
        right = (logits.detach().argmax(1) == region_objectives.likeliest_objects(soft)).float()
        accuracy = right.sum() / max(len(right), 1)
        loss = region_objectives.region_class_divergence(logits, soft, count)
        return Output({chosen: loss}, None, {"objects_accuracy": accuracy})


class UniterRetrieval(UniterTask):
    """A pair is to score higher than its text with other images, and than other texts with its image.

    Others are drawn from the batch: one of each, or the hardest as the model itself scores them. The published code
    draws them from all data: one of each, or the 31 hardest of 399.
    """

    heads = ("itm", "rank")

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.hard = config.task.hard_negatives

    @torch.no_grad()
    def prepare(self, batch: Batch, stage: Stage) -> Targets:
        """The negatives, and their number."""
        if self.hard:
            drawn = hardest_rivals(self.scores(batch), batch.image_id, self.hard)
        else:
            drawn = sample_rivals(batch.image_id)
        count = drawn.usable.sum().float()
        # Published: one mean over the random ones, but for hard ones that of images plus that of texts.
        return Targets({"ranking": count / 2 if self.hard else count}, drawn=drawn)

    def forward(self, batch: Batch, targets: Targets, stage: Stage, drawn: Rivals | None = None) -> Output:
        """The ranking loss. Negatives are those of `prepare` unless given."""
        text, memory = self.encoded(batch)
        rivals: Rivals = drawn or targets.drawn
        own = torch.arange(len(batch), device=batch.ids.device)
        each = own.repeat_interleave(rivals.image.shape[1])
        texts, images = (
            torch.cat([own, each, rivals.text.flatten()]),
            torch.cat([own, rivals.image.flatten(), each]),
        )
        scores = self.student.match(text.index_select(0, texts), batch.mask[texts], memory, images)[:, 1]
        matched, *others = scores.split([len(own), len(each), len(each)])
        negatives = torch.cat([other.view(rivals.image.shape) for other in others], 1)
        usable = rivals.usable.to(negatives.dtype)
        loss = region_objectives.ranking_loss(matched, negatives, usable, MARGIN, targets.counts["ranking"])
        won = (matched.detach()[:, None] > negatives.detach()) * usable
        return Output(
            {"ranking": loss}, None, {"ranking_accuracy": won.sum() / objectives.or_one(usable.sum())}
        )

    def scores(self, batch: Batch) -> Float[Tensor, "texts images"]:
        """The scores of all texts of a batch with all its images, without dropout."""
        student, training = self.student, self.student.training
        student.eval()
        text, memory = self.encoded(batch)
        every = torch.arange(len(batch), device=batch.ids.device).split(1)
        found = [student.match(text, batch.mask, memory.select(image))[:, 1] for image in every]
        student.train(training)
        return torch.stack(found, 1)

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
    """Whether a sentence about two images is true, read in one sequence or in two."""

    heads = ("paired_attention",)  # or "paired" or "triplet", if the recipe says so

    def __init__(self, config: Config) -> None:
        super().__init__(config, (config.task.two_images,))

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


def sample_rivals(image_id: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> Rivals:
    """Another image for each text and another text for each image, drawn uniformly from the batch."""
    image, text = (sample_other(image_id, generator)[:, None] for _ in range(2))
    return Rivals(image, text, has_other(image_id)[:, None].expand(-1, 2))


def hardest_rivals(
    scores: Float[Tensor, "texts images"], image_id: Int[Tensor, " batch"], chosen: int
) -> Rivals:
    """The images that score highest with each text, and the texts that score highest with each image.

    So many of each, or all others of the batch if there are fewer. Those of the same image are no negatives.
    """
    allowed = image_id[:, None] != image_id
    masked = scores.masked_fill(~allowed, -torch.inf)
    chosen = min(chosen, max(len(scores) - 1, 1))
    image, text = (region_objectives.hardest(rows, chosen) for rows in (masked, masked.T))
    usable = torch.cat([allowed.gather(1, image), allowed.gather(1, text)], 1)
    return Rivals(image, text, usable)


def sample_objective(seed: int, step: int, with_classes: bool) -> str:
    """The objective of a step, drawn as often as `MIX` says. All processes and all parts of a batch draw the same.

    Without classes from the detector, "objects" is never drawn.
    """
    names = [name for name in MIX if with_classes or name != "objects"]
    return random.Random(f"{seed} {step}").choices(names, [MIX[name] for name in names])[0]
