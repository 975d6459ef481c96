"""A toy OSCAR, and regions with tags for it."""

from __future__ import annotations

import torch
from torch import Tensor

from albef.data.records import Batch
from albef.data.regions import Regions, Tags
from albef.model_config import ModelConfig
from albef.peers.oscar import OSCAR, TaggedMemory
from albef.peers.oscar_task import NOT_PREDICTED
from toy_batches import both, pairs

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
CLS, SEP, MASK = 2, 3, 4


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


def batch() -> Batch:
    """Four texts with their images, and all that any task reads of them."""
    ids, mask = texts([10, 11], [12], [13, 14, 15, 16], [17, 18])
    seen = regions(3, 1, 2, 2, of=tags([20, 21], [22], [23, 24, 25, 26, 27, 28, 29], [30]))
    second = regions(2, 3, 1, 2, seed=1)
    assert seen.tags is not None
    positions = torch.tensor([1, 7, 13, 15, 20])
    masked, masked_tags = ids.clone(), seen.tags.ids.clone()
    masked.flatten()[positions] = MASK
    labels = torch.full_like(seen.tags.ids, NOT_PREDICTED)
    hidden = torch.tensor([[0, 1], [1, 0], [2, 2], [2, 6]]).T.unbind()
    labels[hidden] = seen.tags.ids[hidden]
    masked_tags[hidden] = MASK
    return Batch(
        **pairs(ids, mask, masked, positions),
        answer_scores=torch.rand(4, CONFIG.num_answers, generator=torch.Generator().manual_seed(0)),
        **both(seen, second),
        label=torch.tensor([1, 0, 0, 1]),
        tag_ids=seen.tags.ids,
        tag_mask=seen.tags.mask,
        masked_tag_ids=masked_tags,
        tag_labels=labels,
    )
