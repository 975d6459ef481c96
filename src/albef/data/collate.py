"""Examples → a batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int64

from albef.data.records import Batch, Example
from albef.data.regions import batch_of_regions, stacked


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """A batch of the examples, in their order. Captions are padded with `pad_id` to the longest."""
    ids, mask = padded([example.ids for example in examples], pad_id)
    masked_ids, _ = padded([example.masked_ids for example in examples], pad_id)
    hidden = np.zeros_like(mask)
    hidden[mask] = np.concatenate([example.mlm_mask for example in examples])
    return Batch(
        pixels=_stacked([example.pixels for example in examples]),
        ids=torch.from_numpy(ids),
        mask=torch.from_numpy(mask),
        masked_ids=torch.from_numpy(masked_ids),
        mlm_positions=torch.from_numpy(np.flatnonzero(hidden)),
        mlm_labels=torch.from_numpy(ids[hidden]),
        image_id=torch.tensor([example.image_id for example in examples]),
        caption_id=torch.tensor([example.caption_id for example in examples]),
        second_pixels=_stacked([example.second_pixels for example in examples]),
        label=_stacked([None if e.label is None else np.asarray(e.label) for e in examples]),
        **_answers(examples, pad_id),
        **_regions(examples, pad_id),
    )


def padded(
    texts: Sequence[np.ndarray], pad_id: int
) -> tuple[Int64[np.ndarray, "texts length"], Bool[np.ndarray, "texts length"]]:
    """Ids of the texts, padded with `pad_id` to the longest, and a mask of the real ones."""
    ids = np.full((len(texts), max(map(len, texts), default=1)), pad_id, dtype=np.int64)
    mask = np.zeros(ids.shape, dtype=bool)
    for row, text in enumerate(texts):
        ids[row, : len(text)], mask[row, : len(text)] = text, True
    return ids, mask


def _stacked(arrays: Sequence[np.ndarray | None]) -> torch.Tensor | None:
    """The arrays as one tensor, or None if the task has none."""
    given = [array for array in arrays if array is not None]
    return torch.from_numpy(np.stack(given)) if given else None


def _answers(examples: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """The answers of all questions, padded to the longest. Empty if the task has none."""
    answers = [answer for example in examples for answer in example.answers]
    if not answers:
        return {}
    ids, mask = padded(answers, pad_id)
    weights = [weight for example in examples for weight in example.answer_weights]
    return {
        "answer_ids": torch.from_numpy(ids),
        "answer_mask": torch.from_numpy(mask),
        "answer_weights": torch.tensor(weights),
        "answer_row": torch.from_numpy(
            np.repeat(np.arange(len(examples)), [len(example.answers) for example in examples])
        ),
    }


def _regions(examples: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """The regions of all images, and their tags. Empty if the system sees pixels."""
    regions = [example.regions for example in examples if example.regions is not None]
    if not regions:
        return {}
    named = batch_of_regions(regions)._asdict().items()
    found = {
        name if "_" in name else f"region_{name}": torch.from_numpy(array)
        for name, array in named
        if array is not None
    }
    hidden = [example.hidden_regions for example in examples if example.hidden_regions is not None]
    if hidden:
        found["hidden_regions"] = torch.from_numpy(stacked(hidden, max(map(len, hidden))))
    tags = [example.tags for example in examples if example.tags is not None]
    if tags:
        ids, mask = padded(tags, pad_id)
        found |= {"tag_ids": torch.from_numpy(ids), "tag_mask": torch.from_numpy(mask)}
    return found
