"""Weights of pre-trained image encoders (ViT, DeiT, DINOv2) and text encoders (BERT and its small variants).

The published model starts from such weights (paper §3.1). Its names are those of timm and BERT with a prefix. So other
names are first changed to timm's and BERT's, and then converted like those of a published model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from albef.config import ModelConfig, UserError
from albef.model.albef import ALBEF
from albef.model.checkpoints import published_names
from albef.model.image_encoder import resize_positions

# Hugging Face's names → timm's, applied in this order. They cover older transformers and transformers 5
# (`layers.N.attention.q_proj`, while DINOv2 keeps `encoder.layer.N`). `attn.query`, `attn.key` and `attn.value` are
# intermediate names of ours.
TO_TIMM = (
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"(?:encoder\.layer|layers)\.(\d+)\.", r"blocks.\1."),
    (r"(blocks\.\d+\.)attention\.attention\.(query|key|value)\.", r"\1attn.\2."),
    (r"(blocks\.\d+\.)attention\.q_proj\.", r"\1attn.query."),
    (r"(blocks\.\d+\.)attention\.k_proj\.", r"\1attn.key."),
    (r"(blocks\.\d+\.)attention\.v_proj\.", r"\1attn.value."),
    (r"(blocks\.\d+\.)attention\.(?:output\.dense|o_proj)\.", r"\1attn.proj."),
    (r"(blocks\.\d+\.)layernorm_before\.", r"\1norm1."),
    (r"(blocks\.\d+\.)layernorm_after\.", r"\1norm2."),
    (r"(blocks\.\d+\.)intermediate\.dense\.", r"\1mlp.fc1."),
    (r"(blocks\.\d+\.)output\.dense\.", r"\1mlp.fc2."),
    (r"(blocks\.\d+\.)layer_scale([12])\.lambda1", r"\1ls\2.gamma"),
    (r"layernorm\.", "norm."),
)
# A layer scale multiplies the output of the last projection before a residual sum.
SCALED = {"ls1.gamma": "attn.proj", "ls2.gamma": "mlp.fc2"}
# A ViT with any of these computes something that our image encoder cannot.
FOREIGN = re.compile(
    r"blocks\.|norm_pre|(embeddings\.)?(register_tokens|reg_token|dist_token|distillation_token)"
)
BLOCK, LAYER = r"blocks\.(\d+)\.", r"bert\.encoder\.layer\.(\d+)\."


class Encoder(NamedTuple):
    """Weights under our names, and the names in the file that our model has no use for."""

    weights: dict[str, Tensor]
    ignored: list[str]


def image_encoder_weights(
    state: Mapping[str, Tensor], config: ModelConfig, layers: Sequence[int] = ()
) -> Encoder:
    """The image encoder's weights from a ViT, with positions resized to the configuration's grid.

    `layers` are the blocks to take, in this order (empty: all). A layer scale is folded into the projection before it.
    Raises `UserError` for another architecture, and for sizes that differ from the configuration.
    """
    root = root_of(state, r"(.*?)(embeddings\.)?cls_token", "class token (cls_token), as a ViT has it")
    inner = {name.removeprefix(root): tensor for name, tensor in state.items() if name.startswith(root)}
    found = join_queries(fold_scales({timm_name(name): tensor for name, tensor in inner.items()}))
    depths = chosen(layers, depth_of(found, BLOCK), config.image_depth, "model.image_depth", "image")
    found = renumbered(found, BLOCK, depths)
    source = {f"visual_encoder.{name}": tensor for name, tensor in found.items()}
    source["visual_encoder.pos_embed"] = square(source.get("visual_encoder.pos_embed"), config.grid)
    own = {name: shape for name, shape in shapes(config).items() if name.startswith("image_encoder.")}
    weights, left = taken(source, own, config)
    left = [name.removeprefix("visual_encoder.") for name in left]
    strange = [name for name in left if FOREIGN.match(name)]
    if strange:
        raise UserError(
            f"it has parts that albef's image encoder lacks ({', '.join(strange[:3])}). "
            f"Take a plain ViT, DeiT or DINOv2 without registers."
        )
    check_shapes(
        weights,
        own,
        config,
        {
            "image_width": weights["image_encoder.patches.weight"].shape[0],
            "image_mlp_width": weights["image_encoder.blocks.0.mlp.up.weight"].shape[0],
            "patch_size": weights["image_encoder.patches.weight"].shape[-1],
        },
    )
    return Encoder(weights, left + outside(state, root))


def text_encoder_weights(
    state: Mapping[str, Tensor], config: ModelConfig, layers: Sequence[int] = ()
) -> Encoder:
    """The weights of text and fusion encoder from a BERT, and its MLM head if it has one.

    `layers` are the layers to take, in this order (empty: all). The first `text_depth` go to the text encoder, the next
    `fusion_depth` to the fusion encoder; published are 6 + 6. BERT has no weights for cross-attention. Raises
    `UserError` for another architecture, and for sizes that differ from the configuration.
    """
    words = r"(.*?)(bert\.)?embeddings\.word_embeddings\.weight"
    root = root_of(state, words, "word embeddings (embeddings.word_embeddings.weight), as BERT has them")
    inner = {name.removeprefix(root): tensor for name, tensor in state.items() if name.startswith(root)}
    found = {bert_name(name): tensor for name, tensor in inner.items()}
    if "cls.predictions.decoder.bias" in found:
        found.setdefault("cls.predictions.bias", found["cls.predictions.decoder.bias"])
    wanted = config.text_depth + config.fusion_depth
    depths = chosen(layers, depth_of(found, LAYER), wanted, "model.text_depth + model.fusion_depth", "text")
    found = renumbered(found, LAYER, depths)
    source = {f"text_encoder.{name}": tensor for name, tensor in found.items()}
    parts = ["text_encoder.", "fusion_encoder.", *(["mlm_head."] if "cls.predictions.bias" in found else [])]
    own = {
        name: shape
        for name, shape in shapes(config).items()
        if name.startswith(tuple(parts)) and ".cross_attention" not in name
    }
    weights, left = taken(source, own, config)
    left = [name.removeprefix("text_encoder.") for name in left]
    strange = [name for name in left if re.match(LAYER, name) and ".crossattention." not in name]
    if strange:
        raise UserError(
            f"its layers have parts that albef's layers lack ({', '.join(strange[:3])}). Take a BERT, or a "
            f"smaller model with the same layers."
        )
    pieces = len(weights["text_encoder.words.weight"])
    if pieces != config.vocab_size:
        raise UserError(
            f"it has {pieces:,} word embeddings, but the tokenizer has {config.vocab_size:,} tokens. Set "
            f"train.init_text to the folder that also holds its tokenizer.json or vocab.txt."
        )
    check_shapes(
        weights,
        own,
        config,
        {
            "text_width": weights["text_encoder.words.weight"].shape[1],
            "text_mlp_width": weights["text_encoder.layers.0.mlp.up.weight"].shape[0],
            "max_positions": weights["text_encoder.positions.weight"].shape[0],
        },
    )
    return Encoder(weights, left + outside(state, root))


def outside(state: Mapping[str, Tensor], root: str) -> list[str]:
    """The names that don't start with the root."""
    return [name for name in state if not name.startswith(root)]


def root_of(state: Mapping[str, Tensor], pattern: str, what: str) -> str:
    """The prefix of the encoder's names: the first group of the pattern in a name that matches it."""
    for name in state:
        if match := re.fullmatch(pattern, name):
            return match[1]
    raise UserError(f"it holds no {what}; its first names are {', '.join(list(state)[:3])}.")


def timm_name(name: str) -> str:
    """A ViT's tensor name, as timm calls it."""
    for pattern, replacement in TO_TIMM:
        if match := re.match(pattern, name):
            name = match.expand(replacement) + name[match.end() :]
    return name


def bert_name(name: str) -> str:
    """A BERT's tensor name, as in BERT with an MLM head. Knows gamma and beta of the oldest files."""
    name = re.sub(r"LayerNorm\.gamma$", "LayerNorm.weight", name)
    name = re.sub(r"LayerNorm\.beta$", "LayerNorm.bias", name)
    return f"bert.{name}" if name.startswith(("embeddings.", "encoder.")) else name


def join_queries(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state with each block's query, key and value joined under timm's one name."""
    found = dict(state)
    for name in state:
        if ".attn.query." in name:
            parts = [name.replace(".attn.query.", f".attn.{part}.") for part in ("query", "key", "value")]
            if all(part in found for part in parts):
                joined = torch.cat([found.pop(part) for part in parts])
                found[name.replace(".attn.query.", ".attn.qkv.")] = joined
    return found


def fold_scales(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without layer scales: γ ⊙ (W x + b) = (γ ⊙ W) x + γ ⊙ b."""
    found = dict(state)
    for name in state:
        block, scale = name[: -len("ls1.gamma")], name[-len("ls1.gamma") :]
        if scale not in SCALED:
            continue
        gamma = found.pop(name)
        for kind, factor in (("weight", gamma[:, None]), ("bias", gamma)):
            target = f"{block}{SCALED[scale]}.{kind}"
            if target in found:
                found[target] = found[target] * factor
    return found


def depth_of(names: Iterable[str], pattern: str) -> int:
    """The number of layers that the names mention."""
    return 1 + max((int(match[1]) for name in names if (match := re.match(pattern, name))), default=-1)


def chosen(layers: Sequence[int], there: int, wanted: int, depth: str, encoder: str) -> list[int]:
    """The layers to take. Raises `UserError` if one is missing, or if the configuration has another number."""
    setting = f"train.init_{encoder}_layers"
    missing = [layer for layer in layers if not 0 <= layer < there]
    if missing:
        raise UserError(f"it has no layer {missing[0]}, only 0 to {there - 1}. Correct {setting}.")
    taken = list(layers) or list(range(there))
    if len(taken) != wanted:
        raise UserError(
            f"{len(taken)} of its {there} layers would be taken, but the recipe has {wanted} ({depth}). Set the recipe "
            f"to {len(taken)}, or choose {wanted} layers with {setting}."
        )
    return taken


def renumbered(state: Mapping[str, Tensor], pattern: str, depths: Sequence[int]) -> dict[str, Tensor]:
    """The state with only the layers `depths`, numbered from 0 in that order."""
    found = {}
    for name, tensor in state.items():
        match = re.match(pattern, name)
        if not match:
            found[name] = tensor
            continue
        start, end = match.span(1)
        for place, depth in enumerate(depths):
            if depth == int(match[1]):
                found[f"{name[:start]}{place}{name[end:]}"] = tensor
    return found


def square(positions: Tensor | None, grid: int) -> Tensor:
    """Position embeddings of [CLS] and `grid` × `grid` patches."""
    if positions is None:
        raise UserError("it has no position embeddings. Take a ViT with learned absolute positions.")
    tokens = positions.shape[1] if positions.ndim == 3 else 0
    if tokens < 2 or round((tokens - 1) ** 0.5) ** 2 != tokens - 1:
        raise UserError(
            f"its position embeddings {list(positions.shape)} do not fit a class token and a square grid of patches. "
            f"Take a ViT for square images."
        )
    return resize_positions(positions, grid)


def shapes(config: ModelConfig) -> dict[str, torch.Size]:
    """Our parameters' names and shapes."""
    with torch.device("meta"):
        return {name: tensor.shape for name, tensor in ALBEF(config, ("mlm",)).state_dict().items()}


def taken(
    source: Mapping[str, Tensor], own: Iterable[str], config: ModelConfig
) -> tuple[dict[str, Tensor], list[str]]:
    """Our tensors from those with published names, and the names left over. Raises `UserError` if one is missing."""
    parts = {name: published_names(name, config) for name in own}
    missing = [part for names in parts.values() for part in names if part not in source]
    if missing:
        lacking = ", ".join(part.partition(".")[2] for part in missing[:3])
        raise UserError(f"it lacks {lacking}. Take the weights of a whole encoder.")
    weights = {name: torch.cat([source[part].float() for part in names]) for name, names in parts.items()}
    used = {part for names in parts.values() for part in names}
    return weights, [name for name in source if name not in used]


def check_shapes(
    weights: Mapping[str, Tensor],
    own: Mapping[str, torch.Size],
    config: ModelConfig,
    settings: Mapping[str, int],
) -> None:
    """Raises `UserError` for shapes that differ from ours: names the first three, and the settings that would fit."""
    wrong = [
        f"{name} is {list(weights[name].shape)} instead of {list(shape)}"
        for name, shape in own.items()
        if weights[name].shape != shape
    ]
    if not wrong:
        return
    unlike = {name: size for name, size in settings.items() if getattr(config, name) != size}
    remedy = "Set " + ", ".join(f"model.{name} to {size}" for name, size in unlike.items())
    raise UserError(
        f"its shapes do not fit this recipe ({'; '.join(wrong[:3])}). "
        f"{remedy if unlike else 'No setting can change that: take other weights'}."
    )
