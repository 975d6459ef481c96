"""Converts CLIP's weights to the names and layout of its published files, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor


class Naming(NamedTuple):
    """How one kind of published files names our tensors."""

    whole: Mapping[str, str]  # our name, or its module → theirs
    block: Mapping[
        str, tuple[str, ...]
    ]  # our module in a block → theirs, equal parts along the first dimension
    image_blocks: str  # what stands before the number of a block
    text_blocks: str
    transposed: tuple[str, ...]  # of ours, stored the other way round

    def parts(self, name: str) -> tuple[str, ...]:
        """Their names of the parts of our tensor `name`."""
        if name in self.whole:
            return (self.whole[name],)
        module, kind = name.rsplit(".", 1)
        if module in self.whole:
            return (f"{self.whole[module]}.{kind}",)
        found = re.fullmatch(r"(image|text)_encoder\.blocks\.(\d+)\.(.+)", module)
        assert found, name
        root = self.image_blocks if found[1] == "image" else self.text_blocks
        return tuple(f"{root}.{found[2]}.{part.format(kind)}" for part in self.block[found[3]])


# OpenAI's files and open_clip's class CLIP.
OPENAI = Naming(
    whole={
        "image_encoder.patches": "visual.conv1",
        "image_encoder.class_token": "visual.class_embedding",
        "image_encoder.positions": "visual.positional_embedding",
        "image_encoder.input_norm": "visual.ln_pre",
        "image_norm": "visual.ln_post",
        "image_projection.weight": "visual.proj",
        "text_encoder.words": "token_embedding",
        "text_encoder.positions": "positional_embedding",
        "text_encoder.norm": "ln_final",
        "text_projection.weight": "text_projection",
        "logit_scale": "logit_scale",
    },
    block={
        "attention_norm": ("ln_1.{}",),
        "attention.qkv": ("attn.in_proj_{}",),
        "attention.out": ("attn.out_proj.{}",),
        "mlp_norm": ("ln_2.{}",),
        "mlp.up": ("mlp.c_fc.{}",),
        "mlp.down": ("mlp.c_proj.{}",),
    },
    image_blocks="visual.transformer.resblocks",
    text_blocks="transformer.resblocks",
    transposed=("image_projection.weight", "text_projection.weight"),
)
# open_clip's class CustomTextCLIP.
CUSTOM_TEXT = OPENAI._replace(
    whole={
        ours: f"text.{theirs}" if ours.startswith("text_") else theirs
        for ours, theirs in OPENAI.whole.items()
    },
    text_blocks="text.transformer.resblocks",
)
HUGGING_FACE = Naming(
    whole={
        "image_encoder.patches": "vision_model.embeddings.patch_embedding",
        "image_encoder.class_token": "vision_model.embeddings.class_embedding",
        "image_encoder.positions": "vision_model.embeddings.position_embedding.weight",
        "image_encoder.input_norm": "vision_model.pre_layrnorm",  # spelt so
        "image_norm": "vision_model.post_layernorm",
        "image_projection": "visual_projection",
        "text_encoder.words": "text_model.embeddings.token_embedding",
        "text_encoder.positions": "text_model.embeddings.position_embedding.weight",
        "text_encoder.norm": "text_model.final_layer_norm",
        "text_projection": "text_projection",
        "logit_scale": "logit_scale",
    },
    block={
        "attention_norm": ("layer_norm1.{}",),
        "attention.qkv": ("self_attn.q_proj.{}", "self_attn.k_proj.{}", "self_attn.v_proj.{}"),
        "attention.out": ("self_attn.out_proj.{}",),
        "mlp_norm": ("layer_norm2.{}",),
        "mlp.up": ("mlp.fc1.{}",),
        "mlp.down": ("mlp.fc2.{}",),
    },
    image_blocks="vision_model.encoder.layers",
    text_blocks="text_model.encoder.layers",
    transposed=(),
)
NAMINGS: dict[str, Naming] = {"openai": OPENAI, "custom-text": CUSTOM_TEXT, "hugging-face": HUGGING_FACE}


def to_published(tensors: Mapping[str, Tensor], naming: Naming = OPENAI) -> dict[str, Tensor]:
    """Weights or gradients of our parameters under their published names."""
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name == "logit_scale":
            tensor = tensor.reshape(())
        tensor = tensor.T if name in naming.transposed else tensor
        names = naming.parts(name)
        state.update(zip(names, tensor.chunk(len(names)) if len(names) > 1 else [tensor], strict=True))
    return state


def from_published(
    state: Mapping[str, Tensor], names: Iterable[str], naming: Naming = OPENAI
) -> dict[str, Tensor]:
    """Our parameters `names`, joined from a published state dict of the same sizes."""
    return {name: joined(state, name, naming) for name in names}


def joined(state: Mapping[str, Tensor], name: str, naming: Naming) -> Tensor:
    """Our parameter `name`, joined from a published state dict."""
    parts = [state[part] for part in naming.parts(name)]
    tensor = parts[0] if len(parts) == 1 else torch.cat(parts)
    if name == "logit_scale":
        return tensor.reshape(1)
    return tensor.T.contiguous() if name in naming.transposed else tensor
