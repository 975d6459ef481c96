"""LXMERT's golden files: what our classes compute for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from replay_clip import number
from torch import Tensor

from albef import objectives
from albef.config import SIZES, TrainConfig
from albef.data.lxmert_tsv import read_regions
from albef.data.regions import Regions
from albef.data.text import SPECIALS, Tokenizer
from albef.data.words import UncleanedWords
from albef.model_config import ModelConfig
from albef.peers import lxmert_names, region_objectives
from albef.peers.lxmert import LXMERT, RegionScores
from albef.peers.lxmert_task import REGION_SCALE
from albef.peers.regions import RegionMemory
from albef.train.optim import build_optimizer, lr_at, set_lr
from golden import AFTER_ADAM, TIGHT, Comparison, Golden, compare

EXACTLY = (0.0, 0.0)
NOT_COUNTED = -100


def load_model(golden: Golden, *heads: str) -> LXMERT:
    """The model with the file's weights."""
    dims = golden.case["dims"]
    config = ModelConfig(
        size="lxmert-base",
        text_width=dims["hidden"],
        text_heads=dims["heads"],
        text_mlp_width=dims["ffn"],
        text_depth=dims["language_layers"],
        image_depth=dims["object_layers"],
        fusion_depth=dims["cross_layers"],
        vocab_size=dims["vocab"],
        max_positions=dims["positions"],
        max_tokens=dims["len"],
        region_width=dims["region_dim"],
        num_objects=dims["objects"],
        num_attributes=dims["attributes"],
        num_answers=dims["answers"],
        dropout=0.0,
        freeze_first_rows=True,
    )
    model = LXMERT(config, heads)
    model.load_state_dict(lxmert_names.from_published(golden.group("weights."), model.state_dict()))
    return model


def regions_of(inputs: Mapping[str, Tensor], mask: Tensor | None = None) -> Regions:
    """The regions of a file, all of them real if there is no mask."""
    features, boxes = inputs["region_features"], inputs["region_boxes"]
    every = torch.ones(features.shape[:2], dtype=torch.bool)
    return Regions(features, boxes, every if mask is None else mask.bool())


def memory_of(model: LXMERT, regions: Regions) -> RegionMemory:
    """The encoded regions."""
    return model.image_memory(model.encode_image(regions))


def gradients_of(model: LXMERT) -> dict[str, Tensor]:
    """The gradients under their published names."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    found = lxmert_names.to_published(
        gradients, lxmert_names.PRETRAINING if model.mlm_head else lxmert_names.FINE_TUNED
    )
    return {f"grad.{name}": tensor for name, tensor in found.items()}


def states_of(model: LXMERT, text: Tensor, mask: Tensor, memory: RegionMemory) -> dict[str, Tensor]:
    """The last states of both sides, zeros at padding, and the pooled ones."""
    fused = model.fuse(text, mask, memory)
    return {
        "language_output": fused.text * mask[..., None],
        "vision_output": fused.regions * memory.mask[..., None],
        "pooled_output": model.pooler(fused.text),
    }


def region_losses(golden: Golden, scores: RegionScores) -> dict[str, Tensor]:
    """Objects and attributes of all regions, and the features of those drawn."""
    inputs = {
        name: tensor.flatten(0, 1) for name, tensor in golden.group("input.").items() if tensor.dim() > 1
    }
    drawn = golden.group("random.")["predicted_region"].flatten().nonzero().squeeze(1)
    count = torch.tensor(float(len(scores.objects)))
    losses = {
        what: region_objectives.detected_class_loss(
            logits, inputs[f"{what}_id"], inputs[f"{what}_confidence"], count
        )
        for what, logits in (("object", scores.objects), ("attribute", scores.attributes))
    }
    features = scores.features[drawn], inputs["region_features"][drawn]
    losses["feature"] = region_objectives.smooth_feature_loss(*features, count)
    return {name: REGION_SCALE * loss for name, loss in losses.items()}


def replay_pretrain(golden: Golden) -> Iterator[Comparison]:
    """One forward and backward with all six losses."""
    model = load_model(golden, "itm", "mlm", "regions", "answers")
    inputs, random, expected = golden.group("input."), golden.group("random."), golden.group("expect.")
    mask = inputs["attention_mask"].bool()
    memory = memory_of(model, regions_of(inputs | {"region_features": random["masked_region_features"]}))
    states = states_of(model, model.encode_text(random["mlm_input_ids"], mask).tokens, mask, memory)
    labels, answers = random["mlm_labels"].flatten(), random["answer"]
    positions, asked = ((found != NOT_COUNTED).nonzero().squeeze(1) for found in (labels, answers))
    assert model.itm_head is not None
    assert model.region_head is not None
    assert model.classifier is not None
    words = model.predict_words(states["language_output"].flatten(0, 1)[positions])
    matching, answered = (head(states["pooled_output"]) for head in (model.itm_head, model.classifier))
    scores = model.region_head(states["vision_output"].flatten(0, 1))
    losses = region_losses(golden, scores)
    pairs = torch.ones(len(matching))
    losses["itm"] = objectives.itm_loss(matching, random["matched"], pairs, pairs.sum())
    for name, logits, wanted in (
        ("mlm", words, labels[positions]),
        ("answer", answered[asked], answers[asked]),
    ):
        count = torch.tensor(float(len(wanted)))
        losses[name] = objectives.classification_loss(logits, None, wanted, 0.0, count)
    loss = torch.stack(list(losses.values())).sum()
    loss.backward()
    shape = memory.mask.shape
    got = states | {
        "mlm_logits": words,
        "itm_logits": matching,
        "answer_logits": answered,
        "object_logits": scores.objects.unflatten(0, shape),
        "attribute_logits": scores.attributes.unflatten(0, shape),
        "feature_prediction": scores.features.unflatten(0, shape),
        "loss": loss,
    }
    got |= {f"loss_{name}": value for name, value in losses.items()} | gradients_of(model)
    yield from compare(got, expected, TIGHT)


def replay_vqa(golden: Golden) -> Iterator[Comparison]:
    """Scores of listed answers, their loss and gradients: with all regions, and with some."""
    inputs, expected = golden.group("input."), golden.group("expect.")
    mask, target = inputs["attention_mask"].bool(), inputs["target"]
    count = torch.tensor(float(len(target)))
    for prefix, region_mask in (("", None), ("masked.", inputs.get("region_mask"))):
        model = load_model(golden, "answers")
        memory = memory_of(model, regions_of(inputs, region_mask))
        text = model.encode_text(inputs["input_ids"], mask).tokens
        logits = model.answer(text, mask, memory)
        loss = region_objectives.listed_answer_loss(logits, target, count)
        loss.backward()
        best = objectives.classification_loss(logits, None, target.argmax(1), 0.0, count)
        got = {"logits": logits, "loss": loss, "loss_ce_times_answers": best * target.shape[1]}
        got |= states_of(model, text, mask, memory) | gradients_of(model)
        wanted = {
            name.removeprefix(prefix): value
            for name, value in expected.items()
            if name.startswith(prefix) and (prefix or not name.startswith("masked."))
        }
        yield from compare(got, wanted, TIGHT, prefix)


def replay_nlvr(golden: Golden) -> Iterator[Comparison]:
    """Texts about two images. The file has both pairs of a text in a row, our memory all first images first."""
    model, inputs = load_model(golden, "nlvr"), golden.group("input.")
    by_side = {name: inputs[name].unflatten(0, (-1, 2)).transpose(0, 1) for name in inputs if name != "label"}
    ids, mask = by_side["input_ids"][0], by_side["attention_mask"][0].bool()
    memory = memory_of(model, regions_of({name: part.flatten(0, 1) for name, part in by_side.items()}))
    text = model.encode_text(ids, mask).tokens
    logits = model.classify(text, mask, memory)
    loss = objectives.classification_loss(
        logits, None, inputs["label"], 0.0, torch.tensor(float(len(logits)))
    )
    loss.backward()
    pooled = model.pooled(torch.cat([text] * 2), torch.cat([mask] * 2), memory)
    pooled = pooled.unflatten(0, (2, -1)).transpose(0, 1).flatten(0, 1)
    got = {"logits": logits, "loss": loss, "pooled_output": pooled} | gradients_of(model)
    yield from compare(got, golden.group("expect."), TIGHT)


def replay_trajectory(golden: Golden) -> Iterator[Comparison]:
    """Five steps of BertAdam: loss, norm of the gradient and learning rate of each, and the weights at the end."""
    model, expected, clip_norm = (
        load_model(golden, "answers"),
        golden.group("expect."),
        golden.case["clip_norm"],
    )
    how = golden.case["optimizer"]
    steps = int(number(how, "t_total="))
    train = TrainConfig(
        lr=number(how, "lr="),
        warmup_steps=round(number(how, "warmup=") * steps),
        steps=steps,
        schedule="linear",
        optimizer="bertadam",
        betas=(number(how, "b1="), number(how, "b2=")),
        weight_decay=number(how, "weight decay"),
        eps=number(how, " e="),
    )
    optimizer = build_optimizer(model, train)
    for step in range(golden.case["steps"]):
        inputs = golden.group(f"input.{step}.")
        rate = lr_at(step, train, steps_per_epoch=1)
        set_lr(optimizer, rate)
        mask, target = inputs["attention_mask"].bool(), inputs["target"]
        text = model.encode_text(inputs["input_ids"], mask).tokens
        logits = model.answer(text, mask, memory_of(model, regions_of(inputs)))
        loss = region_objectives.listed_answer_loss(logits, target, torch.tensor(float(len(target))))
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
        optimizer.step()
        optimizer.zero_grad()
        got = {"loss": loss, "grad_norm": norm, "lr": torch.tensor(rate)}
        wanted = {name: expected[f"{step}.{name}"] for name in got}
        yield from compare(got, wanted, TIGHT, prefix=f"{step}.")
    final = lxmert_names.to_published(model.state_dict())
    yield from compare(final, golden.group("expect.final."), AFTER_ADAM, prefix="final.")


def replay_regions(golden: Golden) -> Iterator[Comparison]:
    """A file of regions, read as published."""
    file = golden.path.with_name(golden.case["file"])
    read = list(read_regions(file))
    found = [torch.tensor([one.height, one.width, len(one.pixel_boxes)]) for one in read]
    sizes = zip(golden.case["sizes_hw"], golden.case["num_boxes"], strict=True)
    wanted = [torch.tensor([*size, count]) for size, count in sizes]
    yield "sizes", torch.stack(found), torch.stack(wanted), EXACTLY
    for line, (one, image_id) in enumerate(zip(read, golden.case["image_ids"], strict=True)):
        yield f"{line}.image_id", torch.tensor(one.image_id == image_id), torch.tensor(True), EXACTLY
        got = {
            "object_id": one.regions.object_ids,
            "object_confidence": one.regions.object_confidences,
            "attribute_id": one.regions.attribute_ids,
            "attribute_confidence": one.regions.attribute_confidences,
            "pixel_boxes": one.pixel_boxes,
            "region_boxes": one.regions.boxes,
            "region_features": one.regions.features,
        }
        tensors = {name: torch.from_numpy(array.copy()) for name, array in got.items()}
        yield from compare(tensors, golden.group(f"expect.{line}."), EXACTLY, f"{line}.")


def replay_text(content: Mapping[str, Any]) -> Iterator[Comparison]:
    """Ids of awkward texts. Only as published does a text that spells a special token get it."""
    words = UncleanedWords(Tokenizer.bert(), SIZES["lxmert-base"])
    for row, case in enumerate(content["cases"]):
        text = case["text"]
        spells = not set(SPECIALS).isdisjoint(text.split())
        ids = spelled(words, text) if spells else words.encode(words.clean(text)).tolist()
        yield f"{row} {text[:20]!r}", torch.tensor(ids), torch.tensor(case["ids"]), EXACTLY


def spelled(words: UncleanedWords, text: str) -> list[int]:
    """Ids of a text, in which special tokens between spaces are read as such."""
    known = words.tokenizer
    ids = (known.pad_id, known.unk_id, known.cls_id, known.sep_id, known.mask_id)
    special = dict(zip(SPECIALS, ids, strict=True))
    pieces = [
        piece
        for word in text.split()
        for piece in ([special[word]] if word in special else words.content(word).tolist())
    ]
    return [known.cls_id, *pieces[: words.config.max_tokens - 2], known.sep_id]
