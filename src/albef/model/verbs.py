"""What tasks, the engine and evaluation ask of a model, whatever its system: a few verbs.

Every model encodes images and texts. What else it can do, its `heads` tell. A verb that a model lacks is never asked.
"""

from __future__ import annotations

import abc
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from albef.data.regions import Tags
from albef.model_config import ModelConfig, SystemName

# The heads that models of each system may have.
HEADS: dict[SystemName, tuple[str, ...]] = {
    "albef": ("contrast", "itm", "mlm", "answer", "entailment", "nlvr", "text_assignment"),
    "clip": ("contrast",),
    "lxmert": ("itm", "mlm", "regions", "answers", "nlvr"),
    "oscar": ("mlm", "pollution", "itm", "answers", "nlvr"),
    "uniter": (
        *("itm", "mlm", "features", "objects", "rank", "answers", "entailment"),
        *("triplet", "paired", "paired_attention"),
    ),
}


# Heads that judge a text about two images.
OF_TWO_IMAGES = ("nlvr", "triplet", "paired", "paired_attention")


class Encoding(NamedTuple):
    """An encoded image or text: its tokens, which of them are real (None: all), and its unit-length feature."""

    tokens: Float[Tensor, "batch length width"]
    mask: Bool[Tensor, "batch length"] | None
    feature: Float[Tensor, "batch feature_width"]
    tags: Tags | None = None  # of images, in systems that read them

    def of(self, rows: slice | Int[Tensor, " chosen"]) -> Encoding:
        """The encoding of some of the images or texts."""
        mask = None if self.mask is None else self.mask[rows]
        tags = None if self.tags is None else Tags(self.tags.ids[rows], self.tags.mask[rows])
        return Encoding(self.tokens[rows], mask, self.feature[rows], tags)


@runtime_checkable
class Memory(Protocol):
    """What matching needs of images, computed once for any number of texts. Only its own model looks inside."""

    def __len__(self) -> int:
        """The number of images."""

    def select(self, image_index: Int[Tensor, " chosen"]) -> Memory:
        """The memory of these images."""

    @property
    def bytes_per_image(self) -> int:
        """What each image takes."""


class Grid(NamedTuple):
    """The places of an image that its tokens stand for: patches, row by row."""

    rows: int
    columns: int


class VisionLanguageModel(nn.Module, abc.ABC):
    """A model of any system. `heads` name what was trained: "contrast", "itm", "mlm", "answer", and so on."""

    config: ModelConfig
    heads: tuple[str, ...]
    temperature: Tensor  # what similarities are divided by, shape [1]; only in models with "contrast"

    @property
    def can_contrast(self) -> bool:
        """Whether images and texts can be compared by their features (ITC)."""
        return "contrast" in self.heads

    @property
    def can_match(self) -> bool:
        """Whether the model has image–text matching (ITM)."""
        return "itm" in self.heads

    @property
    def lists_answers(self) -> bool:
        """Whether the model scores the answers of a list, and writes none."""
        return "answers" in self.heads

    @property
    def places(self) -> Grid:
        """What the image tokens stand for, after the class token."""
        return Grid(self.config.grid, self.config.grid)

    def sample_visual(self, images: int, generator: torch.Generator) -> Any:
        """Random images as the model sees them, to measure with."""
        size = self.config.image_size
        return torch.randn(images, 3, size, size, generator=generator)

    @abc.abstractmethod
    def encode_image(self, visual: Any) -> Encoding:
        """Tokens and features of images. `visual` is what the system sees of them, such as normalised pixels."""

    @abc.abstractmethod
    def encode_text(self, ids: Int[Tensor, "batch length"], mask: Bool[Tensor, "batch length"]) -> Encoding:
        """Tokens (before fusion) and features of texts."""

    @abc.abstractmethod
    def resized(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a model for images of another size, with their position embeddings as this model has them."""

    @abc.abstractmethod
    def checkpoint(self, encoders: Collection[str]) -> None:
        """Turns on activation checkpointing in these encoders ("image", "text", "fusion")."""

    def image_memory(self, image: Encoding) -> Any:
        """The `Memory` of images. Compute it once, use it for any number of texts."""
        raise NotImplementedError

    def match(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: Any,
        image_index: Int[Tensor, " pairs"] | None = None,
    ) -> Float[Tensor, "pairs 2"]:
        """ITM logits [no match, match] of text–image pairs. A memory of one image serves all texts."""
        raise NotImplementedError

    def begin_match(
        self, text_tokens: Float[Tensor, "texts length width"], text_mask: Bool[Tensor, "texts length"]
    ) -> Float[Tensor, "texts length width"]:
        """The part of matching that needs no image: compute it once per text, for any number of images."""
        raise NotImplementedError

    def finish_match(
        self,
        begun: Float[Tensor, "texts length width"],
        text_mask: Bool[Tensor, "texts length"],
        memory: Any,
        image_index: Int[Tensor, " texts"] | None = None,
    ) -> Float[Tensor, "texts 2"]:
        """The rest of matching, from the result of `begin_match`: the same logits as `match`."""
        raise NotImplementedError

    def classify(
        self,
        text_tokens: Float[Tensor, "texts length width"],
        text_mask: Bool[Tensor, "texts length"],
        memory: Any,
    ) -> Float[Tensor, "texts classes"]:
        """Class logits of each text about its image, or about its two images."""
        raise NotImplementedError

    def answer(
        self,
        text_tokens: Float[Tensor, "questions length width"],
        text_mask: Bool[Tensor, "questions length"],
        memory: Any,
    ) -> Float[Tensor, "questions answers"]:
        """A logit of each listed answer to each question about its image."""
        raise NotImplementedError

    def masked_states(
        self,
        masked_ids: Int[Tensor, "batch length"],
        mask: Bool[Tensor, "batch length"],
        memory: Any,
        positions: Int[Tensor, " masked"],
    ) -> Float[Tensor, "masked width"]:
        """Fused states at `positions` (flat indices into batch × length), from which words are predicted."""
        raise NotImplementedError

    def predict_words(self, states: Float[Tensor, "masked width"]) -> Float[Tensor, "masked vocabulary"]:
        """MLM logits of states that `masked_states` gave."""
        raise NotImplementedError


def unit(vectors: Float[Tensor, "batch width"]) -> Float[Tensor, "batch width"]:
    """The vectors at unit length, at least in fp32, since similarities are divided by small temperatures."""
    return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)
