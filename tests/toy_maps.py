"""A toy model whose attention matters, in fp64, and two pairs: for tests of maps."""

import dataclasses

import torch

from albef.config import ModelConfig
from albef.model.albef import ALBEF

CONFIG = ModelConfig(
    image_size=12,
    patch_size=4,
    image_width=8,
    image_depth=1,
    image_heads=2,
    image_mlp_width=16,
    text_width=8,
    text_depth=1,
    fusion_depth=3,
    text_heads=2,
    text_mlp_width=16,
    feature_width=4,
    vocab_size=20,
    max_positions=8,
    max_tokens=8,
    dropout=0.0,
)


def toy_model(**changes: object) -> ALBEF:
    """A model of `CONFIG` with those settings changed."""
    torch.manual_seed(0)
    model = ALBEF(dataclasses.replace(CONFIG, **changes)).double().eval().requires_grad_(False)
    for parameter in model.parameters():  # BERT's initial weights are too small for the attention to matter
        parameter.add_(torch.randn_like(parameter) * 0.3)
    return model


def toy_pairs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels, ids and mask of two pairs; the second text is shorter."""
    torch.manual_seed(1)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    return torch.randn(2, 3, 12, 12).double(), torch.randint(5, 20, (2, 5)), mask
