"""What flows through the data layer: the `Record` of a source, the `Example` drawn from it, the `Batch`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
import xxhash
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def stable_id(text: str) -> int:
    """A 63-bit number for a text, never negative, the same on every machine and in every run."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) >> 1


@dataclass(frozen=True)
class Record:
    """One picture with all its captions, as the source has them: nothing decoded, cleaned or drawn yet."""

    image: Path | np.ndarray  # a file, or uint8 [H, W, 3] RGB
    captions: tuple[str, ...]
    image_id: int | None  # `stable_id` of the user's value; None when the data give none
    caption_ids: tuple[int, ...] | None  # one per caption, equal where the meaning is; None when unknown
    origin: str  # where the user finds it, such as "captions.json, row 12"


@dataclass(frozen=True)
class Example:
    """One training pair with every random choice made: crop, caption, masked tokens."""

    pixels: np.ndarray  # float32 [3, S, S], normalised
    ids: np.ndarray  # int64 [l], begins with [CLS]
    masked_ids: np.ndarray  # int64 [l], `ids` with some tokens hidden
    mlm_mask: np.ndarray  # bool [l], True where the token is to be predicted
    image_id: int  # negative, and no other record's, when the data give none
    caption_id: int  # equal for captions that say the same
    index: int  # of the record in its source


@dataclass(frozen=True)
class Batch:
    """Examples as tensors; captions are padded to the longest one."""

    pixels: Float[Tensor, "batch 3 height width"]
    ids: Int64[Tensor, "batch length"]
    mask: Bool[Tensor, "batch length"]  # True = a token, False = padding
    masked_ids: Int64[Tensor, "batch length"]
    mlm_positions: Int64[Tensor, " masked"]  # row * length + column of every token to predict, ascending
    mlm_labels: Int64[Tensor, " masked"]
    image_id: Int64[Tensor, " batch"]
    caption_id: Int64[Tensor, " batch"]

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return Batch(*(getattr(self, f.name).to(device, non_blocking=non_blocking) for f in fields(self)))

    def slice(self, start: int, stop: int) -> Batch:
        """Rows `start` to `stop` (exclusive) as a batch of their own; captions keep their padded length."""
        length = self.ids.shape[1]
        start, stop, _ = slice(start, stop).indices(len(self))
        inside = (self.mlm_positions >= start * length) & (self.mlm_positions < stop * length)
        return Batch(
            pixels=self.pixels[start:stop],
            ids=self.ids[start:stop],
            mask=self.mask[start:stop],
            masked_ids=self.masked_ids[start:stop],
            mlm_positions=self.mlm_positions[inside] - start * length,
            mlm_labels=self.mlm_labels[inside],
            image_id=self.image_id[start:stop],
            caption_id=self.caption_id[start:stop],
        )
