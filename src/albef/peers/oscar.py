"""OSCAR and OSCAR+: one transformer over a caption, the names of detected objects, and their regions.

Li et al., "Oscar: Object-Semantics Aligned Pre-training for Vision-Language Tasks", ECCV 2020; Zhang et al., "VinVL",
CVPR 2021.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from albef.data.regions import Regions, Tags
from albef.model.heads import MLMHead
from albef.model.kernels import Linear
from albef.model.text_encoder import NORM_EPS, TextEncoder, init_bert
from albef.model.verbs import Encoding
from albef.model_config import ModelConfig
from albef.peers.regions import (
    JointEncoder,
    Pooler,
    RegionMemory,
    RegionModel,
    joined,
    placed,
    without_feature,
)

BOX_NUMBERS = 6  # left, top, right, bottom, width, height


@dataclass(frozen=True)
class TaggedMemory:
    """The memory of images: their embedded regions, and their tags."""

    regions: RegionMemory
    tags: Tags

    def __len__(self) -> int:
        return len(self.regions)

    @property
    def bytes_per_image(self) -> int:
        """What the embedded regions and the tags of an image take."""
        return self.regions.bytes_per_image + self.tags.ids[0].nbytes

    def select(self, image_index: Int[Tensor, " chosen"]) -> TaggedMemory:
        """The memory of these images."""
        return TaggedMemory(self.regions.select(image_index), self.tags.select(image_index))

    def with_tags_of(self, image_index: Int[Tensor, " images"]) -> TaggedMemory:
        """The same regions, each with the tags of the image that the index names: polluted where it is another."""
        return TaggedMemory(self.regions, self.tags.select(image_index))

    def with_tags(self, tags: Tags) -> TaggedMemory:
        """The same regions with these tags, such as masked ones."""
        return TaggedMemory(self.regions, tags)


class States(NamedTuple):
    """The last states of texts with the tags and regions of their images. At padding they are meaningless."""

    text: Float[Tensor, "pairs length width"]
    tags: Float[Tensor, "pairs tags width"]
    regions: Float[Tensor, "pairs regions width"]


class OSCAR(RegionModel):
    """BERT over text, tags and regions, and the heads that a task trains.

    Heads by name: "mlm" (words of captions and tags), "pollution" (whether caption, tags and regions belong together:
    class 0 if they do), "itm" (matching: class 1 if they match), "answers" (scores of listed answers) and "nlvr" (two
    classes of a text about two images).
    """

    def __init__(self, config: ModelConfig, heads: tuple[str, ...] = ("mlm", "pollution")) -> None:
        super().__init__(config, heads)
        width = config.text_width
        self.text_encoder = TextEncoder(config)
        self.region_projection = Linear(config.region_width + BOX_NUMBERS, width)
        self.region_norm = nn.LayerNorm(width, eps=NORM_EPS) if config.region_norm else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.fusion_encoder = JointEncoder(config, config.fusion_depth)
        self.pooler = Pooler(width)
        self.mlm_head = MLMHead(self.text_encoder.words) if "mlm" in heads else None
        self.pollution_head = Linear(width, config.pollution_classes) if "pollution" in heads else None
        self.itm_head = Linear(width, 2) if "itm" in heads else None
        self.answer_head = Linear(width, config.num_answers) if "answers" in heads else None
        self.pair_head = PairHead(config) if "nlvr" in heads else None
        init_bert(self, config.initial_std)
        init_bert(self.text_encoder, config.initial_std)  # which knows its positions and types by their names

    @property
    def can_match(self) -> bool:
        """Whether the model has a head that tells whether image and text belong together."""
        return "itm" in self.heads or "pollution" in self.heads

    def encode_image(self, regions: Regions) -> Encoding:
        """Embedded regions of images, and their tags."""
        numbers = torch.cat([regions.features, six_numbers(regions.boxes)], -1)
        tokens = self.dropout(self.region_norm(self.region_projection(numbers)))
        tags = Tags.none(len(tokens), tokens.device) if regions.tags is None else regions.tags
        return without_feature(tokens, regions.mask)._replace(tags=tags)

    def image_memory(self, image: Encoding) -> TaggedMemory:
        """Embedded regions and tags of the images. Compute them once, use them for any number of texts."""
        assert image.mask is not None
        assert image.tags is not None
        return TaggedMemory(RegionMemory(image.tokens, image.mask), image.tags)

    def embed_tags(
        self, tags: Tags, text_mask: Bool[Tensor, "pairs length"]
    ) -> tuple[Float[Tensor, "pairs tags width"], Bool[Tensor, "pairs tags"]]:
        """Embedded tags, whose positions follow those of their text, and which are real.

        A text and its tags have at most `max_tokens` tokens: tags are cut.
        """
        encoder, lengths = self.text_encoder, text_mask.sum(1)
        ids, mask = tags.cut(self.config.max_tokens - lengths)
        positions = lengths[:, None] + torch.arange(ids.shape[1], device=ids.device)
        positions = positions.clamp(max=self.config.max_positions - 1)  # of padding alone
        embedded = encoder.words(ids) + encoder.positions(positions) + encoder.types.weight[1]
        return encoder.dropout(encoder.norm(embedded)), mask

    def fuse(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: TaggedMemory,
        image_index: Int[Tensor, " pairs"] | None = None,
        first_only: bool = False,
    ) -> Float[Tensor, "pairs read width"]:
        """The last states of text, tags and regions side by side, or of [CLS] alone.

        Text p sees image `image_index[p]` of the memory, or image p without an index. A memory of one image serves
        all texts.
        """
        memory = memory if image_index is None else memory.select(image_index)
        return self.fusion_encoder(*self.sequences(text_tokens, text_mask, memory), first_only)

    def sequences(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: TaggedMemory,
    ) -> tuple[Float[Tensor, "pairs places width"], Bool[Tensor, "pairs places"]]:
        """Text, tags and regions side by side, and which of the places are real."""
        tags, tags_mask = self.embed_tags(memory.tags.expand(len(text_mask)), text_mask)
        words, words_mask = torch.cat([text_tokens, tags], 1), torch.cat([text_mask, tags_mask], 1)
        return joined(words, words_mask, memory.regions)

    def states(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: TaggedMemory,
    ) -> States:
        """All last states."""
        fused = self.fuse(text_tokens, text_mask, memory)
        parts = (text_mask.shape[1], memory.tags.ids.shape[1], memory.regions.tokens.shape[1])
        return States(*fused.split(parts, 1))

    def states_at(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: TaggedMemory,
        positions: Int[Tensor, " read"],
    ) -> Float[Tensor, "read width"]:
        """The last states at `positions`: flat indices into pairs × words, those of the texts and then of the tags.

        The last layer computes no others.
        """
        tokens, real = self.sequences(text_tokens, text_mask, memory)
        words = text_mask.shape[1] + memory.tags.ids.shape[1]
        return self.fusion_encoder.at(tokens, real, placed(positions, words, 0, real.shape[1]))

    def pooled(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: TaggedMemory,
        image_index: Int[Tensor, " pairs"] | None = None,
    ) -> Float[Tensor, "pairs width"]:
        """One vector for each text with its image, after dropout: what the heads of fine-tuning read."""
        states = self.fuse(text_tokens, text_mask, memory, image_index, first_only=True)
        return self.dropout(self.pooler(states))

    def match(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: TaggedMemory,
        image_index: Int[Tensor, " pairs"] | None = None,
    ) -> Float[Tensor, "pairs 2"]:
        """Logits [no match, match] of text–image pairs. A memory of one image serves all texts.

        A pre-trained model takes pairs that are not polluted for matches.
        """
        pooled = self.pooled(text_tokens, text_mask, memory, image_index)
        if self.itm_head is not None:
            return self.itm_head(pooled)
        true, *others = self.judge(pooled).split(1, 1)
        return torch.cat([torch.cat(others, 1).logsumexp(1, keepdim=True), true], 1)

    def judge(self, pooled: Float[Tensor, "triples width"]) -> Float[Tensor, "triples classes"]:
        """Logits of whether caption, tags and regions belong together, from pooled states.

        Class 0: they do. The other classes are kinds of pollution: of anything, or of tags (1) and of captions (2).
        """
        assert self.pollution_head is not None
        return self.pollution_head(pooled)

    def answer(
        self,
        text_tokens: Float[Tensor, "questions length width"],
        text_mask: Bool[Tensor, "questions length"],
        memory: TaggedMemory,
    ) -> Float[Tensor, "questions answers"]:
        """A logit of each listed answer to each question."""
        assert self.answer_head is not None
        return self.answer_head(self.pooled(text_tokens, text_mask, memory))

    def classify(
        self,
        text_tokens: Float[Tensor, "texts length width"],
        text_mask: Bool[Tensor, "texts length"],
        memory: TaggedMemory,
    ) -> Float[Tensor, "texts 2"]:
        """Class logits of each text about its two images. The memory holds all first, then all second images."""
        assert self.pair_head is not None
        twice = text_tokens.repeat(2, 1, 1), text_mask.repeat(2, 1)
        return self.pair_head(torch.cat(self.pooled(*twice, memory).chunk(2), 1))

    def masked_states(
        self,
        masked_ids: Int[Tensor, "batch length"],
        mask: Bool[Tensor, "batch length"],
        memory: TaggedMemory,
        positions: Int[Tensor, " masked"],
    ) -> Float[Tensor, "masked width"]:
        """Last states at `positions` (flat indices into batch × length), from which words are predicted."""
        length, words = mask.shape[1], mask.shape[1] + memory.tags.ids.shape[1]
        text = self.encode_text(masked_ids, mask).tokens
        return self.states_at(text, mask, memory, placed(positions, length, 0, words))

    def checkpoint(self, encoders: Collection[str]) -> None:
        """Turns on activation checkpointing in the layers ("fusion")."""
        self.fusion_encoder.checkpointing = "fusion" in encoders


class PairHead(nn.Module):
    """Logits of two classes from the pooled vectors of both images, side by side."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.pair_head_scale * config.text_width
        self.hidden = Linear(2 * config.text_width, hidden)
        self.norm = nn.LayerNorm(hidden, eps=NORM_EPS) if config.region_norm else nn.Identity()
        self.out = Linear(hidden, 2)

    def forward(self, pooled: Float[Tensor, "texts both"]) -> Float[Tensor, "texts 2"]:
        """Logits of the classes."""
        return self.out(self.norm(F.relu(self.hidden(pooled))))


def six_numbers(boxes: Float[Tensor, "images regions numbers"]) -> Float[Tensor, "images regions 6"]:
    """Left, top, right, bottom, width and height of boxes, as shares of the image's. Published files bring all six."""
    if boxes.shape[-1] >= BOX_NUMBERS:
        return boxes[..., :BOX_NUMBERS]
    return torch.cat([boxes, boxes[..., 2:] - boxes[..., :2]], -1)
