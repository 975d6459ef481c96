"""What tasks on regions draw within a batch: which text goes with which image, and what is shown of hidden regions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from albef import objectives


class Matching(NamedTuple):
    """The image that each text of a batch gets, and whether it is the text's own."""

    image: Int[Tensor, " batch"]
    matched: Int[Tensor, " batch"]


def sample_matching(image_id: Int[Tensor, " batch"], generator: torch.Generator | None = None) -> Matching:
    """Each text keeps its image with probability ½, or gets a uniformly drawn other image of the batch.

    Texts are never exchanged. A text for which the batch has no other image keeps its own.
    """
    image = sample_other(image_id, generator)
    keeps = torch.rand(image.shape, generator=generator, device=image.device) < 0.5
    own = torch.arange(len(image), device=image.device)
    image = torch.where(keeps, own, image)
    return Matching(image, (image_id[image] == image_id).long())


def sample_other(
    image_id: Int[Tensor, " batch"], generator: torch.Generator | None = None
) -> Int[Tensor, " batch"]:
    """For each row another row with another image, drawn uniformly. A row without any gets itself."""
    allowed = image_id[:, None] != image_id
    own = torch.eye(len(image_id), dtype=torch.bool, device=image_id.device)
    allowed |= own & ~allowed.any(1, keepdim=True)
    return objectives.sample_negatives(allowed.float(), generator)


def has_other(image_id: Int[Tensor, " batch"]) -> Bool[Tensor, " batch"]:
    """For which rows the batch has another image."""
    return (image_id[:, None] != image_id).any(1)


@torch.no_grad()
def sample_shown_features(
    features: Float[Tensor, "batch regions width"],
    hidden: Bool[Tensor, "batch regions"],
    mask: Bool[Tensor, "batch regions"],
    generator: torch.Generator | None = None,
) -> Float[Tensor, "batch regions width"]:
    """The features that the model is shown (LXMERT, §3.1.2). Boxes are always shown.

    Of the hidden regions 80 % become zeros, 10 % get the feature of any region of any image of the batch (published:
    of all data), and 10 % stay.
    """
    drawn = torch.zeros(3, *hidden.shape, device=features.device)
    # Of real regions alone: how far a slice of a batch is padded depends on the number of processes.
    drawn[:, mask] = torch.rand(3, int(mask.sum()), generator=generator, device=features.device)
    kind, image = drawn[0], (drawn[1] * len(hidden)).long()
    region = (drawn[2] * mask.sum(1)[image]).long()
    zeroed, exchanged = hidden & (kind < 0.8), hidden & (kind >= 0.8) & (kind < 0.9)
    shown = features.masked_fill(zeroed[..., None], 0.0)
    return torch.where(exchanged[..., None], features[image, region], shown)
