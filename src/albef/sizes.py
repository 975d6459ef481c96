"""The named model sizes, as the settings that differ from the defaults."""

from __future__ import annotations

from typing import Any

# CLIP's published ViT-B/32, and what the larger ones change.
_CLIP: dict[str, Any] = dict(
    system="clip",
    image_size=224,
    patch_size=32,
    text_width=512,
    text_depth=12,
    fusion_depth=0,
    text_heads=8,
    text_mlp_width=2048,
    feature_width=512,
    vocabulary="clip",
    vocab_size=49_408,
    max_positions=77,
    max_tokens=77,
    dropout=0.0,
    activation="quick_gelu",
    fit="crop",
)
_CLIP_LARGE: dict[str, Any] = dict(
    patch_size=14,
    image_width=1024,
    image_depth=24,
    image_heads=16,
    image_mlp_width=4096,
    text_width=768,
    text_heads=12,
    text_mlp_width=3072,
    feature_width=768,
)
# UNITER's published base. Its text encoder has no layers of its own.
_UNITER: dict[str, Any] = dict(
    system="uniter",
    text_depth=0,
    fusion_depth=12,
    num_objects=1601,
    vocabulary="trained",
    vocab_size=28_996,
    append_sep=True,
    max_tokens=62,
    max_words=60,
)
# LXMERT's published size, as it was pre-trained. Layers of regions are as wide as layers of text.
_LXMERT: dict[str, Any] = dict(
    system="lxmert",
    image_depth=5,
    text_depth=9,
    fusion_depth=5,
    num_answers=9_500,
    append_sep=True,
    max_tokens=20,
)
# OSCAR's published base, as it is pre-trained. Its text encoder has no layers of its own.
_OSCAR: dict[str, Any] = dict(system="oscar", text_depth=0, fusion_depth=12, append_sep=True, max_tokens=35)
_OSCAR_PLUS: dict[str, Any] = dict(region_norm=True, pollution_classes=3)
# What the tiny sizes have in common: images, and layers of BERT with a vocabulary of their own.
_TINY_IMAGE: dict[str, Any] = dict(
    image_size=48, patch_size=12, image_width=96, image_depth=4, image_heads=3, image_mlp_width=384
)
_TINY_TEXT: dict[str, Any] = dict(
    text_width=96, text_heads=3, text_mlp_width=384, vocabulary="trained", max_positions=64
)
_TINY_BERT: dict[str, Any] = dict(**_TINY_TEXT, vocab_size=512, dropout=0.0, initial_std=0.1)
_BERT_LARGE: dict[str, Any] = dict(fusion_depth=24, text_width=1024, text_heads=16, text_mlp_width=4096)
OF_SIZE: dict[str, dict[str, Any]] = {
    "tiny": {
        **_TINY_IMAGE,
        **_TINY_BERT,
        **dict(text_depth=2, fusion_depth=2, feature_width=64, sine_positions=True),
    },
    "small": dict(
        image_width=384,
        image_heads=6,
        image_mlp_width=1536,
        text_width=384,
        text_heads=6,
        text_mlp_width=1536,
    ),
    "base": {},
    "clip-tiny": {
        **_CLIP,
        **_TINY_IMAGE,
        **_TINY_TEXT,
        **dict(text_depth=4, feature_width=64, vocab_size=640, max_tokens=64),
    },
    "clip-vit-b-32": {**_CLIP},
    "clip-vit-b-16": {**_CLIP, "patch_size": 16},
    "clip-vit-l-14": {**_CLIP, **_CLIP_LARGE},
    "clip-vit-l-14-336": {**_CLIP, **_CLIP_LARGE, "image_size": 336},
    "lxmert-tiny": {
        **_LXMERT,
        **_TINY_BERT,
        **dict(image_depth=2, text_depth=2, fusion_depth=2, num_answers=128),
    },
    "lxmert-base": {**_LXMERT},
    "uniter-tiny": {**_UNITER, **_TINY_BERT, "fusion_depth": 4},
    "uniter-base": {**_UNITER},
    "uniter-large": {**_UNITER, **_BERT_LARGE},
    "oscar-tiny": {**_OSCAR, **_TINY_BERT, "fusion_depth": 4},
    "oscar-base": {**_OSCAR},
    "oscar-large": {**_OSCAR, **_BERT_LARGE},
    "oscar-plus-base": {**_OSCAR, **_OSCAR_PLUS},
    "oscar-plus-large": {**_OSCAR, **_BERT_LARGE, **_OSCAR_PLUS},
}


def system_of(size: str) -> str:
    """The system that a named size belongs to."""
    return str(OF_SIZE[size].get("system", "albef"))
