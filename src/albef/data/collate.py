"""Examples to a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from albef.data.records import Batch, Example


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """A batch of the examples in their order, captions padded with `pad_id` to the longest."""
    shape = len(examples), max(len(example.ids) for example in examples)
    ids, masked_ids = np.full(shape, pad_id), np.full(shape, pad_id)
    mask, hidden = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for row, example in enumerate(examples):
        length = len(example.ids)
        ids[row, :length] = example.ids
        masked_ids[row, :length] = example.masked_ids
        mask[row, :length] = True
        hidden[row, :length] = example.mlm_mask
    return Batch(
        pixels=torch.from_numpy(np.stack([example.pixels for example in examples])),
        ids=torch.from_numpy(ids),
        mask=torch.from_numpy(mask),
        masked_ids=torch.from_numpy(masked_ids),
        mlm_positions=torch.from_numpy(np.flatnonzero(hidden)),
        mlm_labels=torch.from_numpy(ids[hidden]),
        image_id=torch.tensor([example.image_id for example in examples]),
        caption_id=torch.tensor([example.caption_id for example in examples]),
    )
