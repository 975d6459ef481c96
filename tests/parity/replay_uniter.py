"""UNITER's golden files: what our classes compute for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from albef import objectives
from albef.data.regions import Regions
from albef.evaluation.metrics import recall_at
from albef.model_config import ModelConfig
from albef.peers import region_objectives, uniter_names
from albef.peers.regions import RegionMemory, joined
from albef.peers.uniter import PRETRAINING, UNITER, side_by_side
from golden import TIGHT, Comparison, Golden, compare

HEADS = {
    "uniter_retrieval": ("itm", "rank"),
    "uniter_retrieval_hard": ("itm", "rank"),
    "uniter_vqa": ("answers",),
    "uniter_ve": ("entailment",),
}
PAIRS = {"triplet": "triplet", "paired": "paired", "paired_attn": "paired_attention"}
PUBLISHED_ENTAILMENT = [0, 2, 1]  # contradiction, entailment, neutral, as our classes


def load_model(golden: Golden) -> UNITER:
    """The model with the file's weights and heads."""
    case, weights = golden.case, golden.group("weights.")
    dims = case["dims"]
    config = ModelConfig(
        size="uniter-base",
        text_width=dims["hidden"],
        fusion_depth=dims["layers"],
        text_heads=dims["heads"],
        text_mlp_width=dims["ffn"],
        vocab_size=dims["vocab"],
        max_positions=dims["positions"],
        max_tokens=dims["positions"],
        region_width=dims["region_dim"],
        num_objects=len(weights.get("region_classifier.net.3.bias", [0])),
        num_answers=case.get("num_answers", 1),
        dropout=0.0,
    )
    heads = (PAIRS[case["variant"]],) if "variant" in case else HEADS.get(case["task"], PRETRAINING)
    model = UNITER(config, heads)
    model.load_state_dict(uniter_names.from_published(weights, model.state_dict()))
    return model


class Inputs:
    """A batch of a file: texts, regions of images, and which regions are hidden."""

    def __init__(self, tensors: Mapping[str, Tensor], hidden: Tensor | None = None) -> None:
        self.ids, self.mask = tensors["input_ids"], tensors["attention_mask"].bool()
        features = tensors["region_features"]
        real = torch.arange(features.shape[1]) < tensors["num_regions"][:, None]
        self.regions = Regions(features, tensors["region_boxes"], real)
        self.hidden = None if hidden is None else hidden.bool()

    def text(self, model: UNITER) -> Tensor:
        """The embedded texts."""
        return model.encode_text(self.ids, self.mask).tokens

    def memory(self, model: UNITER) -> RegionMemory:
        """The embedded regions."""
        return model.image_memory(model.encode_image(self.regions, self.hidden))


def packed(states: Tensor, mask: Tensor, places: int) -> Tensor:
    """The real states of each row, one after the other, then zeros."""
    rows = [
        F.pad(row[real], (0, 0, 0, places - int(real.sum()))) for row, real in zip(states, mask, strict=True)
    ]
    return torch.stack(rows)


def states_of(
    model: UNITER, text: Tensor, mask: Tensor, memory: RegionMemory, places: int
) -> dict[str, Tensor]:
    """What every file expects: embedded pairs, their last states, and the pooled ones."""
    tokens, real = joined(text, mask, memory)
    states = model.fuse(text, mask, memory)
    return {
        "embedding_output": packed(tokens, real, places),
        "sequence_output": packed(states, real, places),
        "pooled_output": model.pooler(states),
    }


def gradients(model: UNITER) -> dict[str, Tensor]:
    """The gradients of all parameters that have one, under their published names."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {
        f"grad.{name}": value for name, value in uniter_names.to_published(found, with_tied=False).items()
    }


def count(number: int) -> Tensor:
    """A number of predictions as the losses take it."""
    return torch.tensor(float(number))


def replay_mlm(golden: Golden) -> Iterator[Comparison]:
    """Masked words, with all regions visible."""
    model, inputs = load_model(golden), Inputs(golden.group("input."))
    masked, labels = golden.tensors["random.mlm_input_ids"], golden.tensors["random.mlm_labels"].flatten()
    positions = (labels >= 0).nonzero()[:, 0]
    memory, labels = inputs.memory(model), labels[positions]
    logits = model.predict_words(model.masked_states(masked, inputs.mask, memory, positions))
    loss = objectives.mlm_loss(logits, None, labels, 0.0, count(len(labels)))
    loss.backward()
    got = {
        "logits": logits,
        "token_losses": F.cross_entropy(logits, labels, reduction="none"),
        "loss_mlm": loss,
        **states_of(model, model.encode_text(masked, inputs.mask).tokens, inputs.mask, memory, joint(golden)),
    }
    yield from compare(got | gradients(model), golden.group("expect."), TIGHT)


def joint(golden: Golden) -> int:
    """The length of the packed sequences of a file."""
    return int(golden.case["dims"]["joint"])


def replay_regions(golden: Golden) -> Iterator[Comparison]:
    """Hidden regions, with all words visible: their features, their classes, or the detector's soft labels."""
    model, task = load_model(golden), golden.case["task"].removeprefix("uniter_")
    inputs = Inputs(golden.group("input."), golden.tensors["random.img_mask"])
    assert inputs.hidden is not None
    positions = inputs.hidden.flatten().nonzero()[:, 0]
    text, memory, number = inputs.text(model), inputs.memory(model), count(len(positions))
    states = model.region_states(text, inputs.mask, memory, positions)
    if task == "mrfr":
        features = inputs.regions.features.flatten(0, 1)[positions]
        predicted = model.predict_features(states)
        loss = region_objectives.region_feature_loss(predicted, features, number)
        got = {"predicted_features": predicted, "target_features": features}
    else:
        logits = model.predict_objects(states)
        soft = golden.tensors["input.soft_labels"].flatten(0, 1)[positions]
        if task == "mrc":
            classes = region_objectives.likeliest_objects(soft)
            loss = objectives.mlm_loss(logits, None, classes, 0.0, number)
            losses = F.cross_entropy(logits, classes, reduction="none")
            got = {"logits": logits, "target_classes": classes, "region_losses": losses}
        else:
            loss = region_objectives.region_class_divergence(logits, soft, number)
            elements = F.kl_div(logits.log_softmax(1), soft, reduction="none")
            got = {"logits": logits, "elements": elements}
    loss.backward()
    got |= {f"loss_{task}": loss, **states_of(model, text, inputs.mask, memory, joint(golden))}
    yield from compare(got | gradients(model), golden.group("expect."), TIGHT)


def replay_itm(golden: Golden) -> Iterator[Comparison]:
    """Matching and word–region alignment, from one forward pass."""
    model, inputs, case = load_model(golden), Inputs(golden.group("input.")), golden.case
    text, memory, labels = inputs.text(model), inputs.memory(model), golden.tensors["input.label"]
    states, pairs = model.fuse(text, inputs.mask, memory), count(len(labels))
    logits = model.judge(states)
    masks = inputs.mask, inputs.regions.mask
    words, regions = states.split([masks[0].shape[1], masks[1].shape[1]], 1)
    cost = region_objectives.transport_cost(words, regions, *masks)
    plan = region_objectives.transport_plan(cost, *masks, case["ot"]["beta"], case["ot"]["iterations"])
    distance = region_objectives.transport_distance(cost, plan)
    itm = objectives.itm_loss(logits, labels, torch.ones(len(labels)), pairs)
    alignment = region_objectives.alignment_loss(distance, labels, pairs)
    loss = itm + case["ot_lambda"] * alignment
    loss.backward()
    got = {
        "logits": logits,
        "cost": cost,
        "plan": plan,
        "ot_distance": distance,
        "loss_itm": itm,
        "loss_ot": alignment,
        "loss": loss,
        **states_of(model, text, inputs.mask, memory, joint(golden)),
    }
    yield from compare(got | gradients(model), golden.group("expect."), TIGHT)


def replay_answers(golden: Golden) -> Iterator[Comparison]:
    """Listed answers, and the classes of entailment by the same loss."""
    model, inputs, targets = (
        load_model(golden),
        Inputs(golden.group("input.")),
        golden.tensors["input.target"],
    )
    text, memory = inputs.text(model), inputs.memory(model)
    if model.entailment_head is not None:
        logits = model.classify(text, inputs.mask, memory)[:, PUBLISHED_ENTAILMENT]
    else:
        logits = model.answer(text, inputs.mask, memory)
    loss = region_objectives.listed_answer_loss(logits, targets, count(len(targets)))
    loss.backward()
    got = {"logits": logits, "loss": loss, **states_of(model, text, inputs.mask, memory, joint(golden))}
    yield from compare(got | gradients(model), golden.group("expect."), TIGHT)


def replay_nlvr2(golden: Golden) -> Iterator[Comparison]:
    """One text about two images, in three ways. The files' rows hold both images, or are left and right in turn."""
    model, tensors = load_model(golden), golden.group("input.")
    inputs, labels = Inputs(tensors), tensors["label"]
    if "triplet" in model.heads:
        left, right = (halves(inputs.regions, tensors["region_type"] == kind) for kind in (1, 2))
        ids, mask = inputs.ids, inputs.mask
    else:
        left, right = (Regions(*(part[side::2] for part in inputs.regions[:3])) for side in (0, 1))
        ids, mask = inputs.ids[::2], inputs.mask[::2]
    regions = Regions(*(torch.cat(parts) for parts in zip(left[:3], right[:3], strict=True)))
    text, memory = model.encode_text(ids, mask).tokens, model.image_memory(model.encode_image(regions))
    logits = model.classify(text, mask, memory)
    loss = objectives.classification_loss(logits, None, labels, 0.0, count(len(labels)))
    loss.backward()
    if "triplet" in model.heads:
        states = states_of(model, text, mask, side_by_side(memory), joint(golden))
    else:
        states = states_of(model, text.repeat(2, 1, 1), mask.repeat(2, 1), memory, joint(golden))
        states = {name: torch.stack(rows.chunk(2), 1).flatten(0, 1) for name, rows in states.items()}
    got = {"logits": logits, "loss": loss, **states}
    yield from compare(got | gradients(model), golden.group("expect."), TIGHT)


def halves(regions: Regions, chosen: Tensor) -> Regions:
    """The chosen regions of each row, in front."""
    order = torch.argsort(chosen.int(), dim=1, descending=True, stable=True)[:, :, None]
    features, boxes = (part.take_along_dim(order, 1) for part in regions[:2])
    return Regions(features, boxes, chosen.take_along_dim(order[:, :, 0], 1))


def replay_retrieval(golden: Golden) -> Iterator[Comparison]:
    """The ranking loss, every pair of a gallery, and recalls: counted rightly, and as published."""
    model, inputs, case = load_model(golden), Inputs(golden.group("input.")), golden.case
    text, memory = inputs.text(model), inputs.memory(model)
    scores = model.match(text, inputs.mask, memory)[:, 1]
    matched, negatives = scores.view(-1, case["sample_size"]).split([1, case["sample_size"] - 1], 1)
    loss = ranked(matched[:, 0], negatives, case["margin"])
    loss.backward()
    gallery, expected = Inputs(golden.group("input.gallery.")), golden.group("expect.")
    image_of_text = golden.tensors["input.gallery.image_of_text"]
    with torch.no_grad():
        texts, images = gallery.text(model), gallery.memory(model)
        columns = [
            model.match(texts, gallery.mask, images.select(torch.tensor([image])))[:, 1]
            for image in range(len(images))
        ]
    matrix = torch.stack(columns, 1)
    got = {
        "rank_logits": scores,
        "rank_loss": losses_of(matched, negatives, case["margin"]),
        "loss": loss,
        "score_matrix": matrix,
        **states_of(model, text, inputs.mask, memory, joint(golden)),
    }
    yield from compare(got | gradients(model), expected, TIGHT)
    for name, published in (("metrics", False), ("metrics_published", True)):
        recalls = recalls_of(matrix.float().cpu().numpy(), image_of_text.cpu().numpy(), published)
        for key, value in case[name].items():
            yield f"{name}.{key}", torch.tensor(recalls[key]), torch.tensor(value), TIGHT


def ranked(matched: Tensor, negatives: Tensor, margin: float) -> Tensor:
    """The mean ranking loss."""
    every = torch.ones_like(negatives)
    return region_objectives.ranking_loss(matched, negatives, every, margin, every.sum())


def losses_of(matched: Tensor, negatives: Tensor, margin: float) -> Tensor:
    """The ranking loss of each negative."""
    every = [
        ranked(score[None], other[None, None], margin)
        for score, others in zip(matched[:, 0], negatives, strict=True)
        for other in others
    ]
    return torch.stack(every).view_as(negatives)


def recalls_of(scores: np.ndarray, image_of_text: np.ndarray, published: bool) -> dict[str, float]:
    """Recalls of texts [texts, images] in both directions.

    `published` counts as the published code does: it takes the row numbers of the hits among the ten best for ranks
    too. So each of the first k texts counts once more where its image is among its ten best.
    """
    texts_of = [np.flatnonzero(image_of_text == image) for image in range(scores.shape[1])]
    found = {}
    for k in (1, 5, 10):
        found[f"txt_r{k}"] = recall_at(scores.T, texts_of, k)
        found[f"img_r{k}"] = recall_at(scores, image_of_text.tolist(), k)
        if published:
            first = scores[:k], image_of_text[:k].tolist()
            found[f"img_r{k}"] += recall_at(*first, 10) * len(first[1]) / len(scores)
    for side in ("txt", "img"):
        found[f"{side}_r_mean"] = float(np.mean([found[f"{side}_r{k}"] for k in (1, 5, 10)]))
    return found | {"r_mean": (found["txt_r_mean"] + found["img_r_mean"]) / 2}


def replay_hard(golden: Golden) -> Iterator[Comparison]:
    """The hardest negatives of a text and of an image, and the loss on them."""
    case = golden.case
    for part in ("from_text", "from_image", "from_image_published"):
        model, tensors = load_model(golden), golden.group(f"input.{part}.")
        inputs = Inputs(tensors)
        score = wrongly_packed if part.endswith("published") else rightly_packed
        with torch.no_grad():
            scores = score(model, inputs, tensors, torch.arange(len(inputs.ids)))
        hard = region_objectives.hardest(scores[None, 1:], case["hard_size"])[0] + 1
        again = score(model, inputs, tensors, torch.cat([torch.tensor([0]), hard]))
        matched, negatives = again[None].split([1, case["hard_size"]], 1)
        loss = ranked(matched[:, 0], negatives, case["margin"])
        loss.backward()
        losses = losses_of(matched, negatives, case["margin"]).sort(1).values
        got = {"rank_logits": scores, "hard": hard, "loss": loss, "rank_loss_sorted": losses}
        got |= gradients(model)
        # The published embedding has no gradient at the padding's id. Elsewhere nothing reads it.
        got["grad.uniter.embeddings.word_embeddings.weight"][0] = 0
        yield from compare(got, golden.group(f"expect.{part}."), TIGHT, f"{part}.")


def rightly_packed(model: UNITER, inputs: Inputs, tensors: Mapping[str, Tensor], rows: Tensor) -> Tensor:
    """Scores of some rows."""
    text, memory = inputs.text(model)[rows], inputs.memory(model).select(rows)
    return model.match(text, inputs.mask[rows], memory)[:, 1]


def wrongly_packed(model: UNITER, inputs: Inputs, tensors: Mapping[str, Tensor], rows: Tensor) -> Tensor:
    """Scores of rows packed with the published fault: the first region places hold words, the last regions are lost."""
    every = torch.ones_like(inputs.mask)  # words of the padding are embedded there, and read
    tokens, _ = joined(model.encode_text(inputs.ids, every).tokens, every, inputs.memory(model))
    places = tensors["gather_index"][rows][:, :, None]
    states = model.fusion_encoder(tokens[rows].take_along_dim(places, 1), tensors["joint_mask"][rows].bool())
    return model.judge(states)[:, 1]
