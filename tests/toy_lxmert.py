"""A toy LXMERT, and regions and texts for it."""

from __future__ import annotations

import torch
from torch import Tensor

from albef.data.records import Batch
from albef.data.regions import Regions
from albef.model_config import ModelConfig
from albef.peers.lxmert import LXMERT
from toy_batches import both, pairs

CONFIG = ModelConfig(
    size="lxmert-base",
    image_depth=1,
    text_width=16,
    text_depth=1,
    fusion_depth=2,
    text_heads=2,
    text_mlp_width=32,
    vocabulary="trained",
    vocab_size=40,
    max_positions=12,
    max_tokens=12,
    region_width=6,
    num_objects=7,
    num_attributes=5,
    num_answers=4,
    dropout=0.0,
    initial_std=0.3,
)


def model(*heads: str, seed: int = 0, config: ModelConfig = CONFIG) -> LXMERT:
    """A model whose parameters are all random: no bias is 0, no norm is 1."""
    torch.manual_seed(seed)
    found = LXMERT(config, heads) if heads else LXMERT(config)
    with torch.no_grad():
        for parameter in found.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return found


def regions(*counts: int, seed: int = 0) -> Regions:
    """Random regions of images with these numbers of regions, padded with zeros."""
    generator, most = torch.Generator().manual_seed(seed), max(counts)
    mask = torch.arange(most) < torch.tensor(counts)[:, None]
    features = torch.randn(len(counts), most, CONFIG.region_width, generator=generator)
    boxes = torch.rand(len(counts), most, 4, generator=generator)
    return Regions(features * mask[..., None], boxes * mask[..., None], mask)


def texts(*words: list[int]) -> tuple[Tensor, Tensor]:
    """Ids and mask of texts of these words, with [CLS] and [SEP]."""
    rows = [[2, *text, 3] for text in words]
    length = max(map(len, rows))
    ids = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    return ids, ids != 0


def batch() -> Batch:
    """Four texts with their images, and all that any task reads of them."""
    ids, mask = texts([5, 6, 7], [8], [9, 10, 11, 12], [13, 14])
    seen, second = regions(4, 1, 3, 2), regions(2, 4, 1, 3, seed=1)
    hidden = torch.zeros_like(seen.mask)
    hidden[0, 1] = hidden[2, 0] = hidden[3, 1] = True
    positions = torch.tensor([1, 2, 7, 13])
    masked = ids.clone()
    masked.flatten()[positions] = 4
    generator = torch.Generator().manual_seed(1)
    confidences = torch.rand(2, *hidden.shape, generator=generator) * seen.mask
    return Batch(
        **pairs(ids, mask, masked, positions),
        answer_scores=torch.rand(4, CONFIG.num_answers, generator=generator).round(decimals=1),
        **both(seen, second),
        label=torch.tensor([0, 1, 1, 0]),
        hidden_regions=hidden,
        object_ids=torch.randint(CONFIG.num_objects, hidden.shape, generator=generator),
        object_confidences=confidences[0],
        attribute_ids=torch.randint(CONFIG.num_attributes, hidden.shape, generator=generator),
        attribute_confidences=confidences[1],
        listed_answer=torch.tensor([2, 1, -1, 3]),
    )
