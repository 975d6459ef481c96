"""The three forms of training data: a source's `Record`, an `Example` drawn from it, and a `Batch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import xxhash
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from albef.data.regions import ImageRegions, Regions, Tags
from albef.data.transforms import normalised

Box = tuple[float, float, float, float]  # left, top, width, height in pixels


def stable_id(text: str) -> int:
    """A 63-bit number ≥ 0 for a text, the same on every machine and in every run."""
    return xxhash.xxh3_64_intdigest(text.encode("utf-8", "surrogatepass")) >> 1


class Naming(NamedTuple):
    """A caption that names several things of its image, each once, and the box of each thing by its words."""

    caption: str
    things: tuple[tuple[str, Box], ...]


@dataclass(frozen=True)
class Record:
    """One image with all its texts, as the source has them: not decoded, not cleaned, nothing chosen at random.

    The fields after `origin` are for single tasks: a second image and a label (NLVR2, entailment), weighted answers to
    the question in `captions` (VQA), the box of the thing that a phrase means (grounding).
    """

    image: Path | np.ndarray  # a file, or uint8 [H, W, 3] RGB
    captions: tuple[str, ...]  # or a single question, sentence, statement or phrase
    image_id: int | None  # equal for records of one image; None if no other record has this image
    caption_ids: tuple[int, ...] | None  # one per caption, equal for equal meanings; None if unknown
    origin: str  # where the user can find it, such as "captions.json, row 12"
    second_image: Path | np.ndarray | None = None
    label: int | None = None
    answers: tuple[str, ...] = ()  # as given, repeated if several people gave the same
    answer_weights: tuple[float, ...] = ()  # of each answer; weights of equal answers add up
    official: bool = False  # answers are judged as by VQA v2: letter by letter if all people agree
    key: str = ""  # the data set's own id of the row: question_id, ref_id, identifier
    box: Box | None = None  # of the thing that the phrase means
    proposals: tuple[Box, ...] = ()  # candidates for this box
    naming: Naming | None = None  # of the same image, to check the maps of single words


@dataclass(frozen=True)
class LeftOut:
    """A row or file that a source does not use, and why."""

    origin: str
    reason: str


class SeenRegions(NamedTuple):
    """The regions of an image with every random choice made: hidden regions, masked tags."""

    found: ImageRegions
    hidden: np.ndarray  # bool [regions], those whose features are to be predicted
    tags: np.ndarray  # ids of the names of its objects, int64 [l]; none: empty
    masked_tags: np.ndarray  # int64 [l], `tags` with some tokens masked
    predicted_tags: np.ndarray  # bool [l], True for tokens to predict


@dataclass(frozen=True)
class Example:
    """One training pair with every random choice made: crop, caption, masked tokens."""

    seen: np.ndarray | SeenRegions  # of the image: pixels, uint8 [3, S, S], or regions
    ids: np.ndarray  # int64 [l], begins with [CLS]
    masked_ids: np.ndarray  # int64 [l], `ids` with some tokens masked
    mlm_mask: np.ndarray  # bool [l], True for tokens to predict
    image_id: int  # negative and unique if the data give none
    caption_id: int  # equal for captions that say the same
    index: int  # of the record in its source
    second: np.ndarray | SeenRegions | None = None  # of the second image
    label: int | None = None
    answers: tuple[np.ndarray, ...] = ()  # ids [CLS] … [SEP], int64 [l], different from each other
    answer_weights: tuple[float, ...] = ()
    answer_scores: np.ndarray | None = None  # float32 [listed], of each listed answer
    listed_answer: int | None = None  # number of one of them; -1: the text has none


@dataclass(frozen=True)
class Batch:
    """Examples as tensors. Captions are padded to the longest one.

    Tensors that a task does not use are None. Pixels come as uint8; a model takes them `normalised`. Systems on regions
    have no pixels.
    """

    ids: Int64[Tensor, "batch length"]
    mask: Bool[Tensor, "batch length"]  # True = a token, False = padding
    masked_ids: Int64[Tensor, "batch length"]
    mlm_positions: Int64[Tensor, " masked"]  # row * length + column of every token to predict, ascending
    mlm_labels: Int64[Tensor, " masked"]
    image_id: Int64[Tensor, " batch"]
    caption_id: Int64[Tensor, " batch"]
    pixels: UInt8[Tensor, "batch 3 height width"] | Float[Tensor, "batch 3 height width"] | None = None
    second_pixels: UInt8[Tensor, "batch 3 height width"] | Float[Tensor, "batch 3 height width"] | None = None
    label: Int64[Tensor, " batch"] | None = None
    answer_ids: Int64[Tensor, "answers answer_length"] | None = None  # of all questions, one after the other
    answer_mask: Bool[Tensor, "answers answer_length"] | None = None
    answer_weights: Float[Tensor, " answers"] | None = None
    answer_row: Int64[Tensor, " answers"] | None = None  # which question of the batch each answers, ascending
    answer_scores: Float[Tensor, "batch listed"] | None = None  # 0–1, of each listed answer to each question
    region_features: Float[Tensor, "batch regions width"] | None = None  # with boxes and mask, see `Regions`
    region_boxes: Float[Tensor, "batch regions numbers"] | None = None
    region_mask: Bool[Tensor, "batch regions"] | None = None
    # The second ones are padded to as many as the first.
    second_region_features: Float[Tensor, "batch regions width"] | None = None
    second_region_boxes: Float[Tensor, "batch regions numbers"] | None = None
    second_region_mask: Bool[Tensor, "batch regions"] | None = None
    tag_ids: Int64[Tensor, "batch tags"] | None = None  # with their mask, see `Tags`
    tag_mask: Bool[Tensor, "batch tags"] | None = None
    masked_tag_ids: Int64[Tensor, "batch tags"] | None = None
    tag_labels: Int64[Tensor, "batch tags"] | None = None  # -100 = not to be predicted
    # What else the detector says of each region: the likeliest classes, and how sure it is of them.
    object_ids: Int64[Tensor, "batch regions"] | None = None
    object_confidences: Float[Tensor, "batch regions"] | None = None  # 0 at padding
    attribute_ids: Int64[Tensor, "batch regions"] | None = None
    attribute_confidences: Float[Tensor, "batch regions"] | None = None  # 0 at padding
    listed_answer: Int64[Tensor, " batch"] | None = None  # number of the answer to each text; -1: it has none
    hidden_regions: Bool[Tensor, "batch regions"] | None = None  # those whose features are to be predicted
    region_classes: Float[Tensor, "batch regions classes"] | None = None  # the detector's probabilities

    def __len__(self) -> int:
        return self.ids.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        moved = {
            name: tensor.to(device, non_blocking=non_blocking) for name, tensor in self.tensors().items()
        }
        return replace(self, **moved)

    @property
    def visual(self) -> Any:
        """What a model sees of the images: pixels or `Regions`."""
        if self.region_features is None:
            return self.pixels
        assert self.region_boxes is not None
        assert self.region_mask is not None
        tags = None
        if self.tag_ids is not None and self.tag_mask is not None:
            tags = Tags(self.tag_ids, self.tag_mask)
        return Regions(self.region_features, self.region_boxes, self.region_mask, tags)

    @property
    def visuals(self) -> Any:
        """All images if an example has two: all first ones, then all second ones."""
        if self.second_region_features is not None:
            assert self.second_region_boxes is not None
            assert self.second_region_mask is not None
            first = self.visual
            return Regions(
                torch.cat([first.features, self.second_region_features]),
                torch.cat([first.boxes, self.second_region_boxes]),
                torch.cat([first.mask, self.second_region_mask]),
            )
        if self.second_pixels is None:
            return self.visual
        assert self.pixels is not None
        return torch.cat([self.pixels, self.second_pixels])

    def normalised(self, mean: Sequence[float], std: Sequence[float]) -> Batch:
        """The same batch as a model takes it: pixels as floats, less the mean, by the standard deviation."""
        first, second = (
            None if pixels is None else normalised(pixels, mean, std)
            for pixels in (self.pixels, self.second_pixels)
        )
        return replace(self, pixels=first, second_pixels=second)

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory, from which a GPU can copy in the background."""
        return replace(self, **{name: tensor.pin_memory() for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that this task has, by name."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def split(self, rows: int) -> list[Batch]:
        """The batch in parts of so many rows. The last part may have fewer."""
        if rows >= len(self):
            return [self]  # unchanged, since its memory may be pinned
        return [self.slice(start, start + rows) for start in range(0, len(self), rows)]

    def slice(self, start: int, stop: int) -> Batch:
        """Rows `start` to `stop` (exclusive) as a batch. Texts keep their padded length."""
        length = self.ids.shape[1]
        start, stop, _ = slice(start, stop).indices(len(self))
        masked = (self.mlm_positions >= start * length) & (self.mlm_positions < stop * length)
        rows = {"mlm_positions": masked, "mlm_labels": masked}
        if self.answer_row is not None:
            answered = (self.answer_row >= start) & (self.answer_row < stop)
            rows |= dict.fromkeys(("answer_ids", "answer_mask", "answer_weights", "answer_row"), answered)
        part = {
            name: tensor[rows[name]] if name in rows else tensor[start:stop]
            for name, tensor in self.tensors().items()
        }
        part["mlm_positions"] = part["mlm_positions"] - start * length
        if "answer_row" in part:
            part["answer_row"] = part["answer_row"] - start
        return replace(self, **part)
