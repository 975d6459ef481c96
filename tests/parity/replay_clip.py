"""CLIP's golden files: what our classes compute for each."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from albef import objectives
from albef.config import TrainConfig
from albef.data.transforms import evaluation_transform, normalised
from albef.engine.zero_shot import class_features
from albef.model.verbs import Encoding
from albef.model_config import ModelConfig
from albef.peers import clip_names, clip_text
from albef.peers.clip import CLIP, resize_positions
from albef.peers.clip_text import ClipTokenizer
from albef.train.optim import build_optimizer, lr_at, set_lr
from golden import AFTER_ADAM, TIGHT, Comparison, Golden, compare

EXACTLY = (0.0, 0.0)


def load_model(golden: Golden) -> CLIP:
    """The model with the file's weights, and with as many heads as the file says."""
    dims, weights = golden.case["dims"], golden.group("weights.")
    config = ModelConfig(
        size="clip-vit-b-32",
        image_size=dims["image_res"],
        patch_size=dims["patch"],
        image_width=dims["vision_width"],
        image_depth=dims["vision_depth"],
        image_heads=dims["vision_heads"],
        image_mlp_width=len(weights["visual.transformer.resblocks.0.mlp.c_fc.bias"]),
        text_width=dims["text_width"],
        text_depth=dims["text_depth"],
        text_heads=dims["text_heads"],
        text_mlp_width=len(weights["transformer.resblocks.0.mlp.c_fc.bias"]),
        feature_width=dims["embed_dim"],
        vocab_size=dims["vocab"],
        max_positions=dims["context"],
        max_tokens=dims["context"],
        activation=golden.case.get("activation", "quick_gelu"),
    )
    model = CLIP(config)
    model.load_state_dict(clip_names.from_published(weights, model.state_dict()))
    return model


def logits_of(model: CLIP, image: Encoding, text: Encoding) -> tuple[Tensor, Tensor]:
    """Similarities of all images with all texts, and of all texts with all images."""
    i2t = objectives.similarity(image.feature, (text.feature,), model.temperature)
    t2i = objectives.similarity(text.feature, (image.feature,), model.temperature)
    return i2t, t2i


def loss_of(i2t: Tensor, t2i: Tensor) -> Tensor:
    """The loss of a whole batch, in which pair n is row n and column n."""
    return objectives.contrastive_loss(i2t, t2i, torch.arange(len(i2t)), i2t.new_tensor(len(i2t)))


def replay_vit(golden: Golden) -> Iterator[Comparison]:
    """One forward and backward: tokens, features, logits, loss, gradients, and classes by their names."""
    model, inputs, expected = load_model(golden), golden.group("input."), golden.group("expect.")
    image, text = model.encode_image(inputs["image"]), model.encode_text(inputs["input_ids"])
    i2t, t2i = logits_of(model, image, text)
    loss = loss_of(i2t, t2i)
    loss.backward()
    assert text.mask is not None
    got = {
        "image_tokens": image.tokens,
        "text_tokens": text.tokens * text.mask[:, :, None],
        "image_features": model.image_features(image.tokens),
        "text_features": model.text_features(text.tokens, text.mask),
        "logits_per_image": i2t,
        "logits_per_text": t2i,
        "loss": loss,
        "loss_i2t": loss_of(i2t, i2t),
        "loss_t2i": loss_of(t2i, t2i),
    }
    if "class_ids" in inputs:
        ids = inputs["class_ids"]
        features = class_features(model.encode_text(ids.flatten(0, 1)).feature.unflatten(0, ids.shape[:2]))
        got |= {"class_weights": features.T, "class_logits": 100 * image.feature @ features.T}
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    got |= {f"grad.{name}": value for name, value in clip_names.to_published(gradients).items()}
    yield from compare(got, expected, TIGHT)


def number(text: str, pattern: str) -> float:
    """The number that follows the pattern in a sentence of the file."""
    found = re.search(pattern + r"\s*([\d.e+-]+)", text)
    assert found, pattern
    return float(found[1].rstrip("."))


def replay_trajectory(golden: Golden) -> Iterator[Comparison]:
    """Five optimizer steps: loss, learning rate and scale of each, and everything at the end."""
    model, expected, how = load_model(golden), golden.group("expect."), golden.case["optimizer"]
    peak, warmup = number(how, "AdamW lr="), int(number(how, "warm-up over"))
    train = TrainConfig(
        lr=peak,
        weight_decay=number(how, "weight_decay"),
        betas=(number(how, r"betas=\("), number(how, r"betas=\([\d.]+,")),
        decay_embeddings=True,
        eps=number(how, "eps="),
        schedule="open_clip",
        warmup_steps=warmup,
        steps=int(number(how, "cosine to 0 at step")),
    )
    optimizer = build_optimizer(model, train)
    yield "decayed", *decays(model, optimizer, golden.case["no_decay"]), EXACTLY
    for step in range(golden.case["steps"]):
        inputs = golden.group(f"input.{step}.")
        rate = lr_at(step, train, steps_per_epoch=1)
        set_lr(optimizer, rate)
        image, text = model.encode_image(inputs["image"]), model.encode_text(inputs["input_ids"])
        loss = loss_of(*logits_of(model, image, text))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        model.clamp_temperature()
        got = {"loss": loss, "lr": torch.tensor(rate), "logit_scale": model.logit_scale[0]}
        yield from compare(got, of_step(expected, step), TIGHT, prefix=f"{step}.")
    final = clip_names.to_published(model.state_dict())
    yield from compare(final, golden.group("expect.final."), AFTER_ADAM, prefix="final.")


def decays(model: CLIP, optimizer: torch.optim.Optimizer, spared: Collection[str]) -> tuple[Tensor, Tensor]:
    """The weight decay of every parameter, as the optimizer has it, and whether the file has any there."""
    given = {p: group["weight_decay"] > 0 for group in optimizer.param_groups for p in group["params"]}
    published = {name: clip_names.OPENAI.parts(name)[0] for name, _ in model.named_parameters()}
    got = [given[parameter] for parameter in model.parameters()]
    return torch.tensor(got), torch.tensor([name not in spared for name in published.values()])


def of_step(expected: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
    """What a file expects of one step."""
    start = f"{step}."
    return {
        name.removeprefix(start): value
        for name, value in expected.items()
        if name.startswith(start) and "." not in name.removeprefix(start)
    }


def replay_position_resize(golden: Golden) -> Iterator[Comparison]:
    """Position embeddings resized to other grids."""
    for number, (_, grid) in enumerate(golden.case["grids"]):
        got = resize_positions(golden.tensors[f"input.{number}.positional_embedding"], grid)
        yield from compare(
            {"positional_embedding": got}, golden.group(f"expect.{number}."), TIGHT, f"{number}."
        )


def replay_pixels(golden: Golden) -> Iterator[Comparison]:
    """The published transform of images of several modes. One rounding step of 1/255 apart is fine."""
    config = ModelConfig()
    one_step = (0.0, 1.001 / 255 / min(config.std))
    for number, (mode, _, _) in enumerate(golden.case["images"]):
        inputs = golden.group(f"input.{number}.")
        image = Image.fromarray(inputs["image"].cpu().numpy())
        if mode == "P":
            image.putpalette(inputs["palette"].cpu().numpy().tobytes())
        assert image.mode == mode
        seen = torch.from_numpy(evaluation_transform(image, golden.case["image_res"], "crop"))
        got = {"pixels": normalised(seen, config.mean, config.std)}
        yield from compare(got, golden.group(f"expect.{number}."), one_step, f"{number}.")


def replay_text(content: Mapping[str, Any]) -> Iterator[Comparison]:
    """Cleaned captions and their ids: published, cut to the context, and by open_clip where they differ."""
    published = ClipTokenizer.published(clip_text.SPECIALS)
    open_clip = ClipTokenizer.published(clip_text.OPEN_CLIP_SPECIALS)
    sizes = published.vocab_size, published.start_id, published.end_id, published.pad_id
    expected = [content[name] for name in ("vocab_size", "sot", "eot", "pad")]
    yield "vocabulary", torch.tensor(sizes), torch.tensor(expected), EXACTLY
    for number, case in enumerate(content["cases"]):
        cleaned, whole = clip_text.clean_text(case["text"]), len(case["ids"])
        got = {
            "cleaned": letters(cleaned),
            "ids": published.encode(cleaned, max_tokens=whole).ids,
            "ids_truncated": published.encode(cleaned, content["context"]).ids,
            "ids_open_clip": open_clip.encode(cleaned, max_tokens=10_000).ids,
        }
        expected = case | {"cleaned": letters(case["cleaned"])}
        for name in [name for name in got if name in case]:
            found, wanted = torch.tensor(got[name]), torch.tensor(expected[name])
            yield f"{number} {name} {case['text'][:20]!r}", found, wanted, EXACTLY


def letters(text: str) -> list[int]:
    """The text as numbers: its length, and each letter."""
    return [len(text), *map(ord, text)]
