"""A toy CLIP, and texts for it."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

import toy
from albef.engine import Engine
from albef.model_config import ModelConfig
from albef.peers.clip import CLIP
from albef.peers.clip_text import ClipTokenizer

CONFIG = ModelConfig(
    size="clip-vit-b-32",
    image_size=16,
    patch_size=8,
    image_width=16,
    image_depth=2,
    image_heads=2,
    image_mlp_width=32,
    text_width=12,
    text_depth=2,
    text_heads=2,
    text_mlp_width=24,
    feature_width=8,
    vocab_size=40,
    max_positions=10,
    max_tokens=10,
)
# With byte pairs of its own, for whole runs.
TRAINED = dataclasses.replace(CONFIG, vocabulary="trained", vocab_size=560, max_positions=24, max_tokens=24)
START, END = CONFIG.vocab_size - 2, CONFIG.vocab_size - 1


def model(seed: int = 0, config: ModelConfig = CONFIG) -> CLIP:
    """A model whose parameters are all random: no bias is 0, no norm is 1."""
    torch.manual_seed(seed)
    found = CLIP(config)
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return found


def pixels(count: int, seed: int = 0) -> Tensor:
    """Random images."""
    shape = (count, 3, CONFIG.image_size, CONFIG.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def texts(*words: list[int]) -> Tensor:
    """Texts of these words, with start and end, padded with 0."""
    rows = [[START, *text, END] for text in words]
    length = max(map(len, rows))
    return torch.tensor([row + [0] * (length - len(row)) for row in rows])


def engine(seed: int = 0) -> Engine:
    """A toy model with byte pairs of its own."""
    tokenizer = ClipTokenizer.train(toy.CAPTIONS * 5, 560)
    config = dataclasses.replace(CONFIG, vocab_size=tokenizer.vocab_size, max_positions=24, max_tokens=24)
    return Engine(model(seed, config), tokenizer, quiet=True)
