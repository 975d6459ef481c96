"""Converts weights to the names and layout of ALBEF's published checkpoints, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from albef.config import ModelConfig
from albef.momentum import FeatureQueue

# Our name → the published names of its equal parts along the first dimension. {d} is the layer number.
BLOCK = {
    "attention_norm": ["norm1"],
    "attention.qkv": ["attn.qkv"],
    "attention.out": ["attn.proj"],
    "mlp_norm": ["norm2"],
    "mlp.up": ["mlp.fc1"],
    "mlp.down": ["mlp.fc2"],
}
LAYER = {
    "attention.qkv": ["attention.self.query", "attention.self.key", "attention.self.value"],
    "attention.out": ["attention.output.dense"],
    "attention_norm": ["attention.output.LayerNorm"],
    "cross_attention.query": ["crossattention.self.query"],
    "cross_attention.key_value": ["crossattention.self.key", "crossattention.self.value"],
    "cross_attention.out": ["crossattention.output.dense"],
    "cross_attention_norm": ["crossattention.output.LayerNorm"],
    "mlp.up": ["intermediate.dense"],
    "mlp.down": ["output.dense"],
    "mlp_norm": ["output.LayerNorm"],
}
WHOLE = {
    "image_encoder.class_token": ["visual_encoder.cls_token"],
    "image_encoder.positions": ["visual_encoder.pos_embed"],
    "image_encoder.patches": ["visual_encoder.patch_embed.proj"],
    "image_encoder.norm": ["visual_encoder.norm"],
    "text_encoder.words": ["text_encoder.bert.embeddings.word_embeddings"],
    "text_encoder.positions": ["text_encoder.bert.embeddings.position_embeddings"],
    "text_encoder.types": ["text_encoder.bert.embeddings.token_type_embeddings"],
    "text_encoder.norm": ["text_encoder.bert.embeddings.LayerNorm"],
    "mlm_head.transform": ["text_encoder.cls.predictions.transform.dense"],
    "mlm_head.norm": ["text_encoder.cls.predictions.transform.LayerNorm"],
    "mlm_head.bias": ["text_encoder.cls.predictions.bias"],
    "image_projection": ["vision_proj"],
    "text_projection": ["text_proj"],
    "itm_head": ["itm_head"],
    "temperature": ["temp"],
    "classifier.hidden": ["cls_head.0"],
    "classifier.out": ["cls_head.2"],
    "classifier": ["ta_head"],  # of text assignment: a single linear layer
    "answer_decoder.words": ["text_decoder.bert.embeddings.word_embeddings"],
    "answer_decoder.positions": ["text_decoder.bert.embeddings.position_embeddings"],
    "answer_decoder.types": ["text_decoder.bert.embeddings.token_type_embeddings"],
    "answer_decoder.norm": ["text_decoder.bert.embeddings.LayerNorm"],
    "answer_decoder.head.transform": ["text_decoder.cls.predictions.transform.dense"],
    "answer_decoder.head.norm": ["text_decoder.cls.predictions.transform.LayerNorm"],
    "answer_decoder.head.bias": ["text_decoder.cls.predictions.bias"],
}
# Published state dicts hold tied tensors twice, and also the position numbers.
TIED = {
    f"{encoder}.cls.predictions.decoder.{kind}": f"{encoder}.{source}"
    for encoder in ("text_encoder", "text_decoder")
    for kind, source in (
        ("weight", "bert.embeddings.word_embeddings.weight"),
        ("bias", "cls.predictions.bias"),
    )
}
POSITION_IDS = ("text_encoder.bert.embeddings.position_ids", "text_decoder.bert.embeddings.position_ids")
# Fine-tuned models have no MLM head, and their text encoder's names lack "bert.".
PRETRAINED, FINE_TUNED = "text_encoder.bert.", "text_encoder."
WITHOUT_TEACHER = ("itm_head", "temp")


def published_names(name: str, config: ModelConfig) -> list[str]:
    """The published names of the parts of one of our tensors."""
    if name in WHOLE:
        return WHOLE[name]
    module, kind = name.rsplit(".", 1)
    if module in WHOLE:
        return [f"{part}.{kind}" for part in WHOLE[module]]
    found = re.fullmatch(
        r"(image_encoder.blocks|text_encoder.layers|fusion_encoder.layers|answer_decoder.layers)\.(\d+)\."
        r"(first\.|second\.)?(.+)",
        module,
    )
    assert found, name
    root, depth, place, rest = found[1], int(found[2]), found[3], found[4]
    if root == "image_encoder.blocks":
        return [f"visual_encoder.blocks.{depth}.{part}.{kind}" for part in BLOCK[rest]]
    if place:  # one of the two layers for a pair of images
        depth = 2 * depth + (place == "second.")
    depth += config.text_depth if root == "fusion_encoder.layers" else 0
    encoder = "text_decoder" if root == "answer_decoder.layers" else "text_encoder"
    return [f"{encoder}.bert.encoder.layer.{depth}.{part}.{kind}" for part in LAYER[rest]]


def split_published(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Weights or gradients of our parameters under their published names. Tied tensors appear once."""
    parts: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        names = published_names(name, config)
        parts.update(zip(names, tensor.chunk(len(names)), strict=True))
    if "temp" in parts:
        parts["temp"] = parts["temp"].reshape(())
    return parts


def to_published(weights: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """A model's weights as a published state dict: tied tensors under all their names, no teacher, no queue."""
    state = split_published(weights, config)
    device = next(iter(state.values())).device
    present = {name.partition(".")[0] for name in state}
    numbers = torch.arange(config.max_positions, device=device)[None]
    state |= {name: numbers for name in POSITION_IDS if name.partition(".")[0] in present}
    state |= {alias: state[source] for alias, source in tied_names(state, config).items()}
    return state if "text_encoder.cls.predictions.bias" in state else fine_tuned(state)


def tied_names(state: Mapping[str, Tensor], config: ModelConfig) -> dict[str, str]:
    """Alias → original name, for the tied tensors of a state dict in pre-trained names."""
    aliases = TIED | shared_keys_and_values(state, config)
    return {alias: source for alias, source in aliases.items() if source_is_there(alias, source, state)}


def source_is_there(alias: str, source: str, state: Mapping[str, Tensor]) -> bool:
    """Whether the tied tensor exists. Word embeddings are tied only in models with an MLM head."""
    predicts = f"{alias.partition('.')[0]}.cls.predictions.bias" in state
    return source in state and (predicts or ".cls." not in alias)


def shared_keys_and_values(state: Iterable[str], config: ModelConfig) -> dict[str, str]:
    """Name in the second layer → name in the first, for the shared keys and values of paired layers.

    Empty for models of single images.
    """
    layer = re.compile(r"text_encoder\.bert\.encoder\.layer\.(\d+)\.(crossattention\.self\.query\.\w+)")
    found = (layer.fullmatch(name) for name in state)
    places = {(int(match[1]), match[2].rpartition(".")[2]) for match in found if match}
    depths = {depth for depth, _ in places}
    if len(depths) <= config.fusion_depth:
        return {}
    aliases = {}
    for depth, kind in places:
        if (depth - config.text_depth) % 2:
            for part in ("key", "value"):
                name = "text_encoder.bert.encoder.layer.{}.crossattention.self.{}.{}"
                aliases[name.format(depth, part, kind)] = name.format(depth - 1, part, kind)
    return aliases


def fine_tuned(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in the names of a fine-tuned model."""
    return {
        FINE_TUNED + name.removeprefix(PRETRAINED) if name.startswith(PRETRAINED) else name: tensor
        for name, tensor in state.items()
    }


def pretrained(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict in the names of a pre-trained model. Both kinds of names are accepted."""
    inner = (FINE_TUNED + "embeddings.", FINE_TUNED + "encoder.")
    return {
        PRETRAINED + name.removeprefix(FINE_TUNED) if name.startswith(inner) else name: tensor
        for name, tensor in state.items()
    }


def from_published(
    state: Mapping[str, Tensor], names: Iterable[str], config: ModelConfig
) -> dict[str, Tensor]:
    """Our parameters `names`, joined from a published state dict of the same sizes."""
    state = pretrained(state)
    return {name: joined(state, name, config) for name in names}


def joined(state: Mapping[str, Tensor], name: str, config: ModelConfig) -> Tensor:
    """Our parameter `name`, joined from a state dict in pre-trained names."""
    parts = [state[part] for part in published_names(name, config)]
    tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
    return tensor.reshape(1) if name == "temperature" else tensor


def teacher_name(name: str) -> str:
    """The published name of a teacher's tensor: `_m` after the component's name."""
    component, _, rest = name.partition(".")
    return f"{component}_m.{rest}"


def published_teacher(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The teacher as a published state dict. The ITM head and the temperature have no momentum copy."""
    return {
        teacher_name(name): tensor
        for name, tensor in state.items()
        if name.partition(".")[0] not in WITHOUT_TEACHER
    }


def published_queue(queue: Mapping[str, Tensor], with_image_id: bool = False) -> dict[str, Tensor]:
    """The queue's tensors as published: features in columns. Retrieval's queue also has image ids."""
    found = {
        "image_queue": queue["image"].T,
        "text_queue": queue["text"].T,
        "queue_ptr": queue["pointer"],
    }
    return found | ({"idx_queue": queue["image_id"][None]} if with_image_id else {})


def load_published_queue(queue: FeatureQueue, state: Mapping[str, Tensor]) -> None:
    """Fills the queue from a published state dict. An imported queue counts as full."""
    queue.image.copy_(state["image_queue"].T)
    queue.text.copy_(state["text_queue"].T)
    if "idx_queue" in state:
        queue.image_id.copy_(state["idx_queue"][0])
    queue.pointer.copy_(state["queue_ptr"])
    queue.count.fill_(queue.size)
