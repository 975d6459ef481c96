"""Examples → a batch of tensors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Int64

from albef.data.records import Batch, Example, SeenRegions
from albef.data.regions import batch_of_regions, stacked

NOT_PREDICTED = -100  # the label of tags that are not to be predicted


def collate(examples: Sequence[Example], pad_id: int) -> Batch:
    """A batch of the examples, in their order. Captions are padded with `pad_id` to the longest."""
    ids, mask = padded([example.ids for example in examples], pad_id)
    masked_ids, _ = padded([example.masked_ids for example in examples], pad_id)
    hidden = np.zeros_like(mask)
    hidden[mask] = np.concatenate([example.mlm_mask for example in examples])
    return Batch(
        ids=torch.from_numpy(ids),
        mask=torch.from_numpy(mask),
        masked_ids=torch.from_numpy(masked_ids),
        mlm_positions=torch.from_numpy(np.flatnonzero(hidden)),
        mlm_labels=torch.from_numpy(ids[hidden]),
        image_id=torch.tensor([example.image_id for example in examples]),
        caption_id=torch.tensor([example.caption_id for example in examples]),
        label=_stacked([None if e.label is None else np.asarray(e.label) for e in examples]),
        answer_scores=_stacked([example.answer_scores for example in examples]),
        listed_answer=_stacked(
            [None if e.listed_answer is None else np.asarray(e.listed_answer) for e in examples]
        ),
        **_answers(examples, pad_id),
        **_both(examples, pad_id),
    )


def padded(
    texts: Sequence[np.ndarray], pad_id: int
) -> tuple[Int64[np.ndarray, "texts length"], Bool[np.ndarray, "texts length"]]:
    """Ids of the texts, padded with `pad_id` to the longest (at least 1), and a mask of the real ones."""
    ids = np.full((len(texts), max([1, *map(len, texts)])), pad_id, dtype=np.int64)
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


def _seen(seen: Sequence[np.ndarray | SeenRegions], pad_id: int) -> dict[str, torch.Tensor]:
    """The images of a batch as its fields hold them: pixels, or regions and their tags."""
    pixels = [one for one in seen if isinstance(one, np.ndarray)]
    if pixels:
        return {"pixels": torch.from_numpy(np.stack(pixels))}
    regions = [one for one in seen if isinstance(one, SeenRegions)]
    found = {
        name if "_" in name else f"region_{name}": torch.from_numpy(array)
        for name, array in batch_of_regions([one.found for one in regions])._asdict().items()
        if array is not None
    }
    most = found["region_mask"].shape[1]
    found["hidden_regions"] = torch.from_numpy(stacked([one.hidden for one in regions], most))
    tags, mask = padded([one.tags for one in regions], pad_id)
    masked, _ = padded([one.masked_tags for one in regions], pad_id)
    predicted = np.zeros_like(mask)
    predicted[mask] = np.concatenate([one.predicted_tags for one in regions])
    labels = np.where(predicted, tags, NOT_PREDICTED)
    named = {"tag_ids": tags, "tag_mask": mask, "masked_tag_ids": masked, "tag_labels": labels}
    return found | {name: torch.from_numpy(array) for name, array in named.items()}


SECOND = ("pixels", "region_features", "region_boxes", "region_mask")  # what a batch holds of second images


def _both(examples: Sequence[Example], pad_id: int) -> dict[str, torch.Tensor]:
    """The images of all examples, and their second images if they have them."""
    seconds = [example.second for example in examples if example.second is not None]
    seen = _seen([*(example.seen for example in examples), *seconds], pad_id)
    if not seconds:
        return seen
    first = {name: tensor[: len(examples)] for name, tensor in seen.items()}
    return first | {f"second_{name}": seen[name][len(examples) :] for name in SECOND if name in seen}
