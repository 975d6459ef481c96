"""Recognises which of the six published models a state dict is, and its sizes, from names and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor

from albef.config import ModelConfig, TaskName, UserError

HEAD_WIDTH = 64  # in all published models; shapes do not show it
TEACHER = re.compile(r"(\w+)_m\.(.+)")
QUEUES = ("image_queue", "text_queue", "idx_queue", "queue_ptr")
POSITIONS = "text_encoder.bert.embeddings.position_embeddings.weight"
CROSS = r"text_encoder\.bert\.encoder\.layer\.(\d+)\.crossattention\."
# Tokens and words of a text in the published evaluation. Longer texts were not cut.
SHORT, LONG = (30, 30), (64, 50)


class Structure(NamedTuple):
    """One of the six published models."""

    name: str
    task: TaskName
    heads: tuple[str, ...]  # of ours
    has_teacher: bool = True
    has_queue: bool = False
    text_length: tuple[int, int] = LONG


STRUCTURES = (
    Structure("pretrain", "pretrain", ("contrast", "itm", "mlm"), has_queue=True, text_length=SHORT),
    Structure("retrieval/grounding", "retrieval", ("contrast", "itm"), has_queue=True, text_length=SHORT),
    Structure("vqa", "vqa", ("answer",)),
    Structure("ve", "entailment", ("entailment",)),
    Structure("nlvr", "nlvr", ("nlvr",)),
    Structure(
        "pretrain_nlvr",
        "text_assignment",
        ("contrast", "text_assignment"),
        has_teacher=False,
        text_length=SHORT,
    ),
)
BY_NAME = {structure.name: structure for structure in STRUCTURES}


def structure_of(heads: Sequence[str]) -> Structure | None:
    """The published model with these heads. None if there is none."""
    return next((structure for structure in STRUCTURES if set(structure.heads) == set(heads)), None)


def recognise(state: Mapping[str, Tensor], file: object) -> Structure:
    """Which of the six models the student's state dict is, by its heads.

    Raises `UserError` for state dicts of other models.
    """
    needed = (
        "visual_encoder.cls_token",
        "visual_encoder.pos_embed",
        "visual_encoder.patch_embed.proj.weight",
        "text_encoder.bert.embeddings.word_embeddings.weight",
    )
    if lacking := [name for name in needed if name not in state]:
        first = ", ".join(list(state)[:3]) or "no names at all"
        raise UserError(
            f"{file}: is not one of the published ALBEF models: it has no {lacking[0]} "
            f"(but {first}, …). Give a checkpoint of ALBEF's own scripts or of LAVIS's ALBEF."
        )
    if "ta_head.weight" in state:
        return BY_NAME["pretrain_nlvr"]
    if any(name.startswith("text_decoder.") for name in state):
        return BY_NAME["vqa"]
    if "cls_head.2.weight" in state:
        classes = len(state["cls_head.2.weight"])
        if classes not in (2, 3):
            raise UserError(
                f"{file}: cls_head has {classes} classes, but entailment has 3 and NLVR2 has 2. "
                f"Give one of the published models."
            )
        return BY_NAME["ve" if classes == 3 else "nlvr"]
    if "itm_head.weight" in state:
        return BY_NAME["pretrain" if "text_encoder.cls.predictions.bias" in state else "retrieval/grounding"]
    raise UserError(
        f"{file}: has no head of the published models (itm_head, text_decoder, cls_head, ta_head), only encoders. "
        f"Give a whole checkpoint."
    )


def model_config(
    state: Mapping[str, Tensor],
    structure: Structure,
    heads: Sequence[int],
    told: Mapping[str, Any],
    file: object,
) -> ModelConfig:
    """The model's configuration, from its shapes. Attention heads are given, stored in the file, or 64 channels wide.

    `heads` are the numbers for image and text encoder, one number for both, or empty. Raises `UserError` if the shapes
    are not those of an ALBEF.
    """
    patches, positions = state["visual_encoder.patch_embed.proj.weight"], state["visual_encoder.pos_embed"]
    words = state["text_encoder.bert.embeddings.word_embeddings.weight"]
    grid = math.isqrt(positions.shape[1] - 1) if positions.dim() == 3 else 0
    sizes = [*patches.shape, *words.shape, grid]
    if patches.dim() != 4 or words.dim() != 2 or 0 in sizes or positions.shape[1] != 1 + grid**2:
        raise UserError(
            f"{file}: position embeddings of shape {list(positions.shape)} and patches of {list(patches.shape)} "
            f"do not belong to a square image. Give one of the published models."
        )
    layers = numbers(state, r"text_encoder\.bert\.encoder\.layer\.(\d+)\.")
    fusion = numbers(state, CROSS)
    text_depth = len(layers) - len(fusion)
    pair = 2 if structure.name in ("nlvr", "pretrain_nlvr") else 1
    if text_depth <= 0 or fusion != list(range(text_depth, len(layers))) or len(fusion) % pair:
        raise UserError(
            f"{file}: of its {len(layers)} text layers {len(fusion)} look at the image; in ALBEF the upper ones do, "
            f"above some that don't{', in pairs' if pair == 2 else ''}. This is another model (BLIP?)."
        )
    image_width, text_width = patches.shape[0], words.shape[1]
    max_tokens, max_words = structure.text_length
    settings: dict[str, Any] = {"max_tokens": max_tokens, "max_words": max_words, "transparent": "dropped"}
    settings |= dict(told)
    settings |= attention_heads((image_width, text_width), heads, told, file)
    return ModelConfig(
        image_size=grid * patches.shape[2],
        patch_size=patches.shape[2],
        image_width=image_width,
        image_depth=len(numbers(state, r"visual_encoder\.blocks\.(\d+)\.")),
        image_mlp_width=rows(state, "visual_encoder.blocks.0.mlp.fc1.weight"),
        text_width=text_width,
        text_depth=text_depth,
        fusion_depth=len(fusion) // pair,
        text_mlp_width=rows(state, "text_encoder.bert.encoder.layer.0.intermediate.dense.weight"),
        feature_width=rows(state, "vision_proj.weight")
        if "vision_proj.weight" in state
        else ModelConfig.feature_width,
        vocab_size=words.shape[0],
        max_positions=rows(state, POSITIONS) if POSITIONS in state else ModelConfig.max_positions,
        **settings,
    )


def attention_heads(
    widths: tuple[int, int], heads: Sequence[int], told: Mapping[str, Any], file: object
) -> dict[str, int]:
    """The numbers of heads of image and text encoder: given, stored in the file, or 64 channels wide.

    Raises `UserError` for numbers that do not divide the widths.
    """
    if len(heads) > 2:
        raise UserError(f"--heads takes one number, or two (image and text encoder), not {len(heads)}.")
    names = ("image_heads", "text_heads")
    counts = {name: width / HEAD_WIDTH for name, width in zip(names, widths, strict=True)}
    counts |= {name: told[name] for name in names if name in told}
    counts |= dict(zip(names, [*heads, *heads], strict=False))
    for (name, count), width in zip(counts.items(), widths, strict=True):
        if count < 1 or width % count:
            raise UserError(
                f"{file}: the {name.partition('_')[0]} encoder is {width} wide, which {count:g} attention heads do "
                f"not divide; say how many it has with --heads IMAGE TEXT."
            )
    return {name: int(count) for name, count in counts.items()}


def numbers(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    """The layer numbers in names that begin like the pattern, in order."""
    return sorted({int(found[1]) for name in state if (found := re.match(pattern, name))})


def rows(state: Mapping[str, Tensor], name: str) -> int:
    """The first dimension of a tensor. 1 if it is missing, which the comparison of shapes reports later."""
    return max(len(state[name]), 1) if name in state and state[name].dim() else 1
