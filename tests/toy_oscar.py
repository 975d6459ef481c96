"""A toy OSCAR, and regions with tags for it."""

from __future__ import annotations

import torch
from torch import Tensor

from albef.data.regions import Regions, Tags
from albef.model_config import ModelConfig
from albef.peers.oscar import OSCAR, TaggedMemory

CONFIG = ModelConfig(
    size="oscar-plus-base",
    text_width=12,
    fusion_depth=2,
    text_heads=2,
    text_mlp_width=24,
    vocab_size=40,
    max_positions=20,
    max_tokens=12,
    region_width=5,
    num_answers=7,
    dropout=0.0,
    initial_std=0.2,
)
CLS, SEP = 2, 3


def model(*heads: str, seed: int = 0, config: ModelConfig = CONFIG) -> OSCAR:
    """A model whose parameters are all random: no bias is 0, no norm is 1."""
    torch.manual_seed(seed)
    found = OSCAR(config, heads or ("mlm", "pollution"))
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return found


def padded(*rows: list[int]) -> tuple[Tensor, Tensor]:
    """Ids of these rows padded with 0, and which are real."""
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows], dtype=torch.long)
    return ids, torch.tensor([[n < len(row) for n in range(length)] for row in rows]).view(ids.shape)


def texts(*words: list[int]) -> tuple[Tensor, Tensor]:
    """Texts of these words as the model reads them, and which tokens are real."""
    return padded(*([CLS, *text, SEP] for text in words))


def tags(*names: list[int]) -> Tags:
    """The tags of images; no names, no tags."""
    return Tags(*padded(*([*row, SEP] if row else [] for row in names)))


def regions(*counts: int, of: Tags | None = None, seed: int = 0) -> Regions:
    """So many random regions in each image."""
    draws = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    features = torch.randn(*mask.shape, CONFIG.region_width, generator=draws) * mask[..., None]
    corners = torch.rand(*mask.shape, 2, 2, generator=draws).sort(2).values.flatten(2) * mask[..., None]
    return Regions(features, corners, mask, of)


def memory(found: OSCAR, given: Regions) -> TaggedMemory:
    """The memory of these images."""
    return found.image_memory(found.encode_image(given))
