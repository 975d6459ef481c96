"""Converts UNITER's weights to the names of its published files, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from albef.model.checkpoints import LAYER

# Our module, or the name of a tensor without one → theirs.
WHOLE = {
    "text_encoder.words": "uniter.embeddings.word_embeddings",
    "text_encoder.positions": "uniter.embeddings.position_embeddings",
    "text_encoder.types": "uniter.embeddings.token_type_embeddings",
    "text_encoder.norm": "uniter.embeddings.LayerNorm",
    "region_embedding.features": "uniter.img_embeddings.img_linear",
    "region_embedding.features_norm": "uniter.img_embeddings.img_layer_norm",
    "region_embedding.boxes": "uniter.img_embeddings.pos_linear",
    "region_embedding.boxes_norm": "uniter.img_embeddings.pos_layer_norm",
    "region_embedding.hidden": "uniter.img_embeddings.mask_embedding",
    "region_embedding.norm": "uniter.img_embeddings.LayerNorm",
    "pooler.linear": "uniter.pooler.dense",
    "mlm_head.transform": "cls.predictions.transform.dense",
    "mlm_head.norm": "cls.predictions.transform.LayerNorm",
    "mlm_head.bias": "cls.predictions.bias",
    "feature_head.transform": "feat_regress.net.0",
    "feature_head.norm": "feat_regress.net.2",
    "feature_head.bias": "feat_regress.bias",
    "object_head.hidden": "region_classifier.net.0",
    "object_head.norm": "region_classifier.net.2",
    "object_head.out": "region_classifier.net.3",
    "itm_head": "itm_output",
    "rank_head": "rank_output",
    "answer_head.hidden": "vqa_output.0",
    "answer_head.norm": "vqa_output.2",
    "answer_head.out": "vqa_output.3",
    "entailment_head.hidden": "vqa_output.0",
    "entailment_head.norm": "vqa_output.2",
    "entailment_head.out": "vqa_output.3",
    "pair_head": "nlvr2_output",
    "pair_attention.first.qkv": "attn1.in_proj",
    "pair_attention.first.out": "attn1.out_proj",
    "pair_attention.second.qkv": "attn2.in_proj",
    "pair_attention.second.out": "attn2.out_proj",
    "pair_attention.merge": "fc.0",
    "pair_attention.weigh": "attn_pool.fc.0",
}
# Published state dicts hold tied tensors twice, in models that have the second name's head.
TIED = {
    "cls.predictions.decoder.weight": ("cls.predictions.bias", "uniter.embeddings.word_embeddings.weight"),
    "feat_regress.weight": ("feat_regress.bias", "uniter.img_embeddings.img_linear.weight"),
}
# Published: contradiction, entailment, neutral. Ours: contradiction, neutral, entailment. The same swap leads back.
ENTAILMENT_ORDER = [0, 2, 1]


def published_names(name: str) -> list[str]:
    """The published names of the equal parts of our tensor `name`, along its first dimension."""
    if name in WHOLE:
        return [WHOLE[name]]
    module, kind = name.rsplit(".", 1)
    if module in WHOLE:
        return [f"{WHOLE[module]}{'_' if module.endswith('.qkv') else '.'}{kind}"]
    found = re.fullmatch(r"fusion_encoder\.layers\.(\d+)\.(.+)", module)
    assert found, name
    return [f"uniter.encoder.layer.{found[1]}.{part}.{kind}" for part in LAYER[found[2]]]


def split_published(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights or gradients of our parameters under their published names. Tied tensors appear once."""
    parts: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        names = published_names(name)
        parts.update(zip(names, in_order(name, tensor).tensor_split(len(names)), strict=True))
    return parts


def to_published(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's weights as a published state dict, with tied tensors under both of their names."""
    state = split_published(weights)
    return state | {alias: state[source] for alias, (head, source) in TIED.items() if head in state}


def from_published(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Our parameters `names`, joined from a published state dict of the same sizes."""
    found = {}
    for name in names:
        parts = [state[part] for part in published_names(name)]
        found[name] = in_order(name, parts[0] if len(parts) == 1 else torch.cat(parts))
    return found


def in_order(name: str, tensor: Tensor) -> Tensor:
    """The tensor with the classes of entailment in the other order. Any other tensor as it is."""
    return tensor[ENTAILMENT_ORDER] if name.startswith("entailment_head.out.") else tensor
