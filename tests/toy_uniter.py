"""A toy UNITER, with texts and regions for it."""

from __future__ import annotations

import torch
from torch import Tensor

from albef.data.records import Batch
from albef.data.regions import Regions
from albef.model_config import ModelConfig
from albef.peers.uniter import PRETRAINING, UNITER
from toy_batches import both, pairs

CONFIG = ModelConfig(
    size="uniter-base",
    text_width=16,
    fusion_depth=2,
    text_heads=2,
    text_mlp_width=24,
    vocab_size=40,
    max_positions=12,
    max_tokens=12,
    region_width=10,
    num_objects=7,
    num_answers=5,
    dropout=0.0,
)


def model(heads: tuple[str, ...] = PRETRAINING, seed: int = 0, config: ModelConfig = CONFIG) -> UNITER:
    """A model whose parameters are all random: no bias is 0, no norm is 1."""
    torch.manual_seed(seed)
    found = UNITER(config, heads)
    with torch.no_grad():
        for parameter in found.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return found


def texts(*lengths: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Random texts of these lengths, and their mask."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    return torch.randint(5, CONFIG.vocab_size, mask.shape, generator=generator) * mask, mask


def regions(*counts: int, seed: int = 0) -> Regions:
    """Random regions of images with so many each."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(counts))[None] < torch.tensor(counts)[:, None]
    features = torch.rand(*mask.shape, CONFIG.region_width, generator=generator)
    corners = (
        torch.rand(*mask.shape, 2, 2, generator=generator).sort(2).values
    )  # (left, top), (right, bottom)
    real = mask[:, :, None]
    return Regions(features * real, corners.flatten(2) * real, mask)


def batch() -> Batch:
    """Four texts with their images, and all that any task reads of them."""
    ids, mask = texts(5, 3, 6, 4)
    seen = regions(3, 2, 4, 1)
    second = regions(1, 4, 2, 2, seed=1)
    hidden = torch.zeros_like(seen.mask)
    hidden[0, 1] = hidden[2, 0] = hidden[2, 3] = hidden[3, 0] = True
    positions = torch.tensor([1, 2, 7, 13, 20])
    masked = ids.clone()
    masked.flatten()[positions] = 4
    generator = torch.Generator().manual_seed(0)
    soft = torch.rand(*hidden.shape, CONFIG.num_objects, generator=generator).softmax(2)
    return Batch(
        **pairs(ids, mask, masked, positions),
        label=torch.tensor([0, 1, 1, 0]),
        answer_scores=torch.rand(4, CONFIG.num_answers, generator=generator).round(decimals=1),
        **both(seen, second),
        hidden_regions=hidden,
        region_classes=soft,
    )
