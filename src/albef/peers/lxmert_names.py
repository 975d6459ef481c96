"""Converts LXMERT's weights to the names of its published files, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Naming(NamedTuple):
    """What stands before the names in one kind of published files."""

    encoders: str
    answers: str  # before the number of the answer head's layer


PRETRAINING = Naming("bert.", "answer_head.logit_fc.")
FINE_TUNED = Naming("lxrt_encoder.model.bert.", "logit_fc.")
HUGGING_FACE = Naming("lxmert.", "answer_head.logit_fc.")
NAMINGS: dict[str, Naming] = {
    "pretraining": PRETRAINING,
    "fine-tuned": FINE_TUNED,
    "hugging-face": HUGGING_FACE,
}

TIED = "cls.predictions.decoder.weight"  # the word embeddings once more
WORDS = "text_encoder.words.weight"
ENCODERS = {  # our module → theirs, behind `Naming.encoders`
    "text_encoder.words": "embeddings.word_embeddings",
    "text_encoder.positions": "embeddings.position_embeddings",
    "text_encoder.types": "embeddings.token_type_embeddings",
    "text_encoder.norm": "embeddings.LayerNorm",
    "image_encoder.features": "encoder.visn_fc.visn_fc",
    "image_encoder.feature_norm": "encoder.visn_fc.visn_layer_norm",
    "image_encoder.boxes": "encoder.visn_fc.box_fc",
    "image_encoder.box_norm": "encoder.visn_fc.box_layer_norm",
    "pooler.linear": "pooler.dense",
}
HEADS = {
    "mlm_head": "cls.predictions",  # has a bias of its own
    "mlm_head.transform": "cls.predictions.transform.dense",
    "mlm_head.norm": "cls.predictions.transform.LayerNorm",
    "itm_head": "cls.seq_relationship",
    "region_head.transform": "obj_predict_head.transform.dense",
    "region_head.norm": "obj_predict_head.transform.LayerNorm",
    "region_head.objects": "obj_predict_head.decoder_dict.obj",
    "region_head.attributes": "obj_predict_head.decoder_dict.attr",
    "region_head.features": "obj_predict_head.decoder_dict.feat",
}
ANSWERS = {"classifier.hidden": "0", "classifier.norm": "2", "classifier.out": "3"}
STACKS = {
    "text_encoder.layers": "layer",
    "image_encoder.layers": "r_layers",
    "fusion_encoder.layers": "x_layers",
}
QUERY_KEY_VALUE = ("query", "key", "value")


def bert_layer(attention: str, inner: str, output: str) -> dict[str, tuple[str, ...]]:
    """Our modules of a BERT layer → theirs, equal parts along the first dimension."""
    return {
        "attention.qkv": tuple(f"{attention}.self.{part}" for part in QUERY_KEY_VALUE),
        "attention.out": (f"{attention}.output.dense",),
        "attention_norm": (f"{attention}.output.LayerNorm",),
        "mlp.up": (f"{inner}.dense",),
        "mlp.down": (f"{output}.dense",),
        "mlp_norm": (f"{output}.LayerNorm",),
    }


LAYER = {
    **bert_layer("attention", "intermediate", "output"),
    **{
        f"{ours}_layer.{module}": parts
        for ours, theirs in (("text", "lang"), ("region", "visn"))
        for module, parts in bert_layer(f"{theirs}_self_att", f"{theirs}_inter", f"{theirs}_output").items()
    },
}
BOTH_WAYS = {  # in cross layers, where our names are those of self-attention in other layers
    "attention.qkv": tuple(f"visual_attention.att.{part}" for part in QUERY_KEY_VALUE),
    "attention.out": ("visual_attention.output.dense",),
    "attention_norm": ("visual_attention.output.LayerNorm",),
}


def published_parts(name: str, naming: Naming) -> tuple[str, ...]:
    """Their names of the parts of our tensor `name`."""
    module, kind = name.rsplit(".", 1)
    if module in ENCODERS:
        return (f"{naming.encoders}{ENCODERS[module]}.{kind}",)
    if module in HEADS:
        return (f"{HEADS[module]}.{kind}",)
    if module in ANSWERS:
        return (f"{naming.answers}{ANSWERS[module]}.{kind}",)
    found = re.fullmatch(r"(\w+\.layers)\.(\d+)\.(.+)", module)
    assert found, name
    stack = STACKS[found[1]]
    parts = {**LAYER, **BOTH_WAYS}[found[3]] if stack == "x_layers" else LAYER[found[3]]
    return tuple(f"{naming.encoders}encoder.{stack}.{found[2]}.{part}.{kind}" for part in parts)


def to_published(tensors: Mapping[str, Tensor], naming: Naming | None = None) -> dict[str, Tensor]:
    """Weights or gradients of our parameters under their published names.

    Without a naming it is that of pre-training if the tensors have such a head, otherwise that of fine-tuning.
    """
    pretrained = "mlm_head.bias" in tensors
    naming = naming or (PRETRAINING if pretrained else FINE_TUNED)
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        names = published_parts(name, naming)
        state.update(zip(names, tensor.chunk(len(names)) if len(names) > 1 else [tensor], strict=True))
    if pretrained:
        state[TIED] = tensors[WORDS]
    return state


def from_published(state: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Our parameters `names`, joined from a published state dict of any naming and of the same sizes."""
    state = {bare(name): tensor for name, tensor in state.items()}
    words = published_parts(WORDS, Naming("", ""))[0]
    naming = next(one for one in NAMINGS.values() if one.encoders + words in state)
    return {name: joined(state, name, naming) for name in names}


def joined(state: Mapping[str, Tensor], name: str, naming: Naming) -> Tensor:
    """Our parameter `name`, joined from a published state dict."""
    parts = [state[part] for part in published_parts(name, naming)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def bare(name: str) -> str:
    """The name without what training on several GPUs has put into it."""
    return name.removeprefix("module.").replace("lxrt_encoder.model.module.", "lxrt_encoder.model.")
