"""UNITER: one encoder over the words of a text and the regions of its image (Chen et al., ECCV 2020)."""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from albef.data.regions import Regions
from albef.model.heads import MLMHead, TiedHead, TwoLayerHead
from albef.model.kernels import Linear, linear
from albef.model.layers import Packing, SelfAttention, attend, split_heads
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

PRETRAINING = ("itm", "mlm", "features", "objects")
PAIRS = ("triplet", "paired", "paired_attention")  # how a text and two images are read
BOX_NUMBERS = 7


class UNITER(RegionModel):
    """The encoder, and the heads that a task trains.

    Heads by name: "itm", "mlm", "features" and "objects" of hidden regions, "rank" (one score of a pair, in place of
    ITM), "answers" (of a list), "entailment" (three classes). For one text about two images: "triplet" (one sequence of
    the text and both images), "paired" (the text with either image, both pooled states side by side) or
    "paired_attention" (the same, with attention between the two sequences).
    """

    def __init__(self, config: ModelConfig, heads: tuple[str, ...] = PRETRAINING) -> None:
        super().__init__(config, heads)
        width = config.text_width
        self.reads_pairs = any(head in heads for head in PAIRS)
        # Types: a text, the regions of an image, those of a second image.
        self.text_encoder = TextEncoder(config, types=3 if self.reads_pairs else 2)
        self.region_embedding = RegionEmbedding(config)
        self.fusion_encoder = JointEncoder(config, config.fusion_depth)
        self.pooler = Pooler(width)
        self.itm_head = Linear(width, 2) if "itm" in heads else None
        self.rank_head = Linear(width, 1) if "rank" in heads else None
        self.mlm_head = MLMHead(self.text_encoder.words) if "mlm" in heads else None
        self.feature_head = TiedHead(width, config.region_width) if "features" in heads else None
        self.object_head = TwoLayerHead(width, width, config.num_objects) if "objects" in heads else None
        self.answer_head = TwoLayerHead(width, 2 * width, config.num_answers) if "answers" in heads else None
        self.entailment_head = TwoLayerHead(width, 2 * width, 3) if "entailment" in heads else None
        self.pair_head = Linear(width if "triplet" in heads else 2 * width, 2) if self.reads_pairs else None
        init_bert(self, config.initial_std)
        init_bert(self.text_encoder, config.initial_std)  # which knows its positions and types by their names
        # Last, since its first weights are not BERT's.
        self.pair_attention = PairAttention(config) if "paired_attention" in heads else None

    def encode_image(
        self, regions: Regions, hidden: Bool[Tensor, "images regions"] | None = None
    ) -> Encoding:
        """Tokens of the regions of images. The features of `hidden` regions are not seen, their boxes are."""
        return without_feature(self.region_embedding(regions, hidden), regions.mask)

    def image_memory(self, image: Encoding) -> RegionMemory:
        """Embedded regions. Of a model for two images per text: all first images, then all second images."""
        assert image.mask is not None
        types = self.text_encoder.types.weight
        kinds = types[1]
        if self.reads_pairs:
            kinds = types[1:].repeat_interleave(len(image.tokens) // 2, 0)[:, None]
        return RegionMemory(self.region_embedding.placed(image.tokens, kinds), image.mask)

    def fuse(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: RegionMemory,
        image_index: Int[Tensor, " pairs"] | None = None,
        first_only: bool = False,
    ) -> Float[Tensor, "pairs places width"]:
        """The last states of text and regions, side by side. Text p sees image `image_index[p]`, or image p.

        With `first_only` the last layer computes [CLS] alone (one place).
        """
        memory = memory if image_index is None else memory.select(image_index)
        return self.fusion_encoder(*joined(text_tokens, text_mask, memory), first_only=first_only)

    def judge(self, states: Float[Tensor, "pairs places width"]) -> Float[Tensor, "pairs 2"]:
        """ITM logits [no match, match] from the states of pairs.

        A score s of the "rank" head is the logits [0, s]: their probability of a match is the published sigmoid(s).
        """
        pooled = self.pooler(states)
        if self.rank_head is not None:
            return F.pad(self.rank_head(pooled), (1, 0))
        assert self.itm_head is not None
        return self.itm_head(pooled)

    def match(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: RegionMemory,
        image_index: Int[Tensor, " pairs"] | None = None,
    ) -> Float[Tensor, "pairs 2"]:
        """ITM logits [no match, match] of text–image pairs. A memory of one image serves all texts."""
        return self.judge(self.fuse(text_tokens, text_mask, memory, image_index, first_only=True))

    def answer(
        self,
        text_tokens: Float[Tensor, "questions length width"],
        text_mask: Bool[Tensor, "questions length"],
        memory: RegionMemory,
    ) -> Float[Tensor, "questions answers"]:
        """A logit of each listed answer to each question."""
        assert self.answer_head is not None
        return self.answer_head(self.pooler(self.fuse(text_tokens, text_mask, memory, first_only=True)))

    def classify(
        self,
        text_tokens: Float[Tensor, "texts length width"],
        text_mask: Bool[Tensor, "texts length"],
        memory: RegionMemory,
    ) -> Float[Tensor, "texts classes"]:
        """Class logits of each text about its image, or about its two images."""
        if self.pair_head is None:
            assert self.entailment_head is not None
            states = self.fuse(text_tokens, text_mask, memory, first_only=True)
            return self.entailment_head(self.pooler(states))
        if "triplet" in self.heads:
            both = side_by_side(memory)
            return self.pair_head(self.pooler(self.fuse(text_tokens, text_mask, both, first_only=True)))
        tokens, mask = joined(text_tokens.repeat(2, 1, 1), text_mask.repeat(2, 1), memory)
        if self.pair_attention is None:
            read = self.pooler(self.fusion_encoder(tokens, mask, first_only=True))
        else:
            read = self.pair_attention(self.fusion_encoder(tokens, mask), mask)
        return self.pair_head(torch.cat(read.chunk(2), 1))

    def masked_states(
        self,
        masked_ids: Int[Tensor, "batch length"],
        mask: Bool[Tensor, "batch length"],
        memory: RegionMemory,
        positions: Int[Tensor, " masked"],
    ) -> Float[Tensor, "masked width"]:
        """Fused states at `positions` (flat indices into batch × length), from which words are predicted."""
        tokens, real = joined(self.text_encoder(masked_ids, mask), mask, memory)
        return self.fusion_encoder.at(tokens, real, placed(positions, mask.shape[1], 0, real.shape[1]))

    def region_states(
        self,
        text_tokens: Float[Tensor, "batch length width"],
        text_mask: Bool[Tensor, "batch length"],
        memory: RegionMemory,
        positions: Int[Tensor, " hidden"],
    ) -> Float[Tensor, "hidden width"]:
        """Fused states at `positions` (flat indices into batch × regions), from which hidden regions are predicted."""
        tokens, real = joined(text_tokens, text_mask, memory)
        length, places = text_mask.shape[1], real.shape[1]
        return self.fusion_encoder.at(tokens, real, placed(positions, places - length, length, places))

    def predict_features(self, states: Float[Tensor, "hidden width"]) -> Float[Tensor, "hidden region_width"]:
        """Features of hidden regions. The output weights are those that read features, transposed."""
        assert self.feature_head is not None
        return self.feature_head(states, self.region_embedding.features.weight.T)

    def predict_objects(self, states: Float[Tensor, "hidden width"]) -> Float[Tensor, "hidden objects"]:
        """Class logits of hidden regions. Class 0 is the background."""
        assert self.object_head is not None
        return self.object_head(states)

    def checkpoint(self, encoders: Collection[str]) -> None:
        """Turns on activation checkpointing in the encoder, which is called "fusion"."""
        self.fusion_encoder.checkpointing = "fusion" in encoders


class RegionEmbedding(nn.Module):
    """What a region looks like and where it is, each normalised, added up."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.text_width
        self.features = Linear(config.region_width, width)
        self.features_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.boxes = Linear(BOX_NUMBERS, width)
        self.boxes_norm = nn.LayerNorm(width, eps=NORM_EPS)
        # Row 1 stands for the features of hidden regions. Row 0 is in published files, and never used.
        self.hidden = nn.Embedding(2, config.region_width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, regions: Regions, hidden: Bool[Tensor, "images regions"] | None
    ) -> Float[Tensor, "images regions width"]:
        """The regions before they know whether their image is the first or the second."""
        features = regions.features
        if hidden is not None:
            features = torch.where(hidden[:, :, None], self.hidden.weight[1].to(features.dtype), features)
        boxes = self.boxes(seven_numbers(regions.boxes))
        return self.features_norm(self.features(features)) + self.boxes_norm(boxes)

    def placed(
        self, tokens: Float[Tensor, "images regions width"], types: Float[Tensor, "*_ width"]
    ) -> Float[Tensor, "images regions width"]:
        """The regions as the encoder reads them."""
        return self.dropout(self.norm(tokens + types))


class PairAttention(nn.Module):
    """One vector for each of two sequences, which attend to each other (the published "paired-attn")."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.text_width
        self.first = OtherAttention(width, config.text_heads, config.dropout_of_attention)
        self.second = OtherAttention(width, config.text_heads, config.dropout_of_attention)
        self.merge = Linear(2 * width, width)
        self.weigh = Linear(width, 1)
        self.dropout = nn.Dropout(config.dropout)
        init_bert(self, config.initial_std)
        for attention in (self.first, self.second):
            nn.init.xavier_uniform_(attention.qkv.weight)

    def forward(
        self, states: Float[Tensor, "rows places width"], mask: Bool[Tensor, "rows places"]
    ) -> Float[Tensor, "rows width"]:
        """The vectors. Rows are all texts with their first images, then all texts with their second images."""
        (first, second), (first_mask, second_mask) = states.chunk(2), mask.chunk(2)
        seen = [self.first(first, first_mask, second, second_mask)]
        seen += [self.second(second, second_mask, first, first_mask)]
        merged = self.dropout(F.relu(self.merge(torch.cat([torch.cat(seen), states], -1))))
        scores = F.relu(self.weigh(merged))[:, :, 0].masked_fill(~mask, torch.finfo(merged.dtype).min)
        return (scores.softmax(1)[:, None] @ merged).squeeze(1)


class OtherAttention(SelfAttention):
    """Attention of each place of a sequence to another sequence."""

    def forward(  # type: ignore[override]
        self,
        states: Float[Tensor, "rows places width"],
        mask: Bool[Tensor, "rows places"],
        others: Float[Tensor, "rows other_places width"],
        others_mask: Bool[Tensor, "rows other_places"],
    ) -> Float[Tensor, "rows places width"]:
        """What each real place sees."""
        width, packing = states.shape[-1], Packing.of(mask)
        query_weight, pair_weight = self.qkv.weight.split([width, 2 * width])
        query_bias, pair_bias = self.qkv.bias.split([width, 2 * width])
        (query,) = split_heads(linear(states, query_weight, query_bias), self.heads, 1)
        key, value = split_heads(linear(others, pair_weight, pair_bias), self.heads, 2)
        dropout = self.dropout if self.training else 0.0
        return packing.pad(self.out(packing.pack(attend(query, key, value, others_mask, dropout)[0])))


def side_by_side(memory: RegionMemory) -> RegionMemory:
    """First and second images as one image each: the regions of both."""
    return RegionMemory(torch.cat(memory.tokens.chunk(2), 1), torch.cat(memory.mask.chunk(2), 1))


def seven_numbers(boxes: Float[Tensor, "images regions numbers"]) -> Float[Tensor, "images regions 7"]:
    """Left, top, right, bottom, width, height and area of boxes, as shares of the image's.

    Published files bring all seven, with a width and a height that were rounded on their own.
    """
    if boxes.shape[-1] == BOX_NUMBERS:
        return boxes
    size = boxes[..., 2:4] - boxes[..., :2]
    return torch.cat([boxes[..., :4], size, size.prod(-1, keepdim=True)], -1)
