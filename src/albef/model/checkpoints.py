"""Our weights under the published names and layout, and back (spec §1.11)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from albef.config import ModelConfig
from albef.momentum import FeatureQueue

# Our name -> the published names of its equal parts along the first dimension. {d} is a layer's number.
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
}
# Published state dicts hold tied tensors twice, and the numbers of the positions.
ALIASES = {
    "text_encoder.cls.predictions.decoder.weight": "text_encoder.bert.embeddings.word_embeddings.weight",
    "text_encoder.cls.predictions.decoder.bias": "text_encoder.cls.predictions.bias",
}
POSITION_IDS = "text_encoder.bert.embeddings.position_ids"
WITHOUT_TEACHER = ("itm_head", "temp")


def published_names(name: str, config: ModelConfig) -> list[str]:
    """The published names of the parts that one of our tensors is split into."""
    if name in WHOLE:
        return WHOLE[name]
    module, kind = name.rsplit(".", 1)
    if module in WHOLE:
        return [f"{part}.{kind}" for part in WHOLE[module]]
    found = re.fullmatch(
        r"(image_encoder.blocks|text_encoder.layers|fusion_encoder.layers)\.(\d+)\.(.+)", module
    )
    assert found, name
    root, depth, rest = found[1], int(found[2]), found[3]
    if root == "image_encoder.blocks":
        return [f"visual_encoder.blocks.{depth}.{part}.{kind}" for part in BLOCK[rest]]
    depth += config.text_depth if root == "fusion_encoder.layers" else 0
    return [f"text_encoder.bert.encoder.layer.{depth}.{part}.{kind}" for part in LAYER[rest]]


def split_published(tensors: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """Tensors named like our parameters (weights or gradients) under the published names, nothing added."""
    parts: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        names = published_names(name, config)
        parts.update(zip(names, tensor.chunk(len(names)), strict=True))
    if "temp" in parts:
        parts["temp"] = parts["temp"].reshape(())
    return parts


def to_published(model: nn.Module, config: ModelConfig) -> dict[str, Tensor]:
    """The published state dict of a model without teacher and queue."""
    state = split_published(model.state_dict(), config)
    device = next(iter(state.values())).device
    state[POSITION_IDS] = torch.arange(config.max_positions, device=device)[None]
    state.update({alias: state[source] for alias, source in ALIASES.items() if source in state})
    return state


def from_published(
    state: Mapping[str, Tensor], names: Iterable[str], config: ModelConfig
) -> dict[str, Tensor]:
    """Tensors for our parameter `names`, joined from a published state dict of the same sizes."""
    joined = {}
    for name in names:
        parts = [
            state[part].reshape(1) if part == "temp" else state[part]
            for part in published_names(name, config)
        ]
        joined[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
    return joined


def teacher_name(name: str) -> str:
    """The published name of a teacher's tensor: the component's name gets `_m`."""
    component, _, rest = name.partition(".")
    return f"{component}_m.{rest}"


def published_teacher(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The teacher's published state dict; the matching head and the temperature have no momentum copy."""
    return {
        teacher_name(name): tensor
        for name, tensor in state.items()
        if name.partition(".")[0] not in WITHOUT_TEACHER
    }


def published_queue(queue: FeatureQueue) -> dict[str, Tensor]:
    """The queue as published: features in columns."""
    return {"image_queue": queue.image.T, "text_queue": queue.text.T, "queue_ptr": queue.pointer}


def load_published_queue(queue: FeatureQueue, state: Mapping[str, Tensor]) -> None:
    """Fills the queue from a published state dict; an imported queue counts as full."""
    queue.image.copy_(state["image_queue"].T)
    queue.text.copy_(state["text_queue"].T)
    queue.pointer.copy_(state["queue_ptr"])
    queue.count.fill_(queue.size)
