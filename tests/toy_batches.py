"""What the toy batches of all systems on regions have in common."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from albef.data.records import Batch
from albef.data.regions import Regions


def pairs(ids: Tensor, mask: Tensor, masked_ids: Tensor, positions: Tensor) -> dict[str, Tensor]:
    """The fields of texts, each of another image, with these positions masked."""
    return {
        "ids": ids,
        "mask": mask,
        "masked_ids": masked_ids,
        "mlm_positions": positions,
        "mlm_labels": ids.flatten()[positions],
        "image_id": torch.arange(len(ids)),
        "caption_id": torch.arange(len(ids)),
    }


def both(first: Regions, second: Regions) -> dict[str, Tensor]:
    """The fields of images and of second images."""
    return {
        f"{which}region_{name}": getattr(regions, name)
        for which, regions in (("", first), ("second_", second))
        for name in ("features", "boxes", "mask")
    }


def in_double(batch: Batch) -> Batch:
    """The batch in double precision, so that the order of sums does not show."""
    floats = {name: part.double() for name, part in batch.tensors().items() if part.is_floating_point()}
    return dataclasses.replace(batch, **floats)
