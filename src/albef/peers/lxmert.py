"""LXMERT: a text encoder, a region encoder, and cross layers between them (Tan and Bansal, EMNLP 2019)."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from albef.data.regions import Regions
from albef.model.heads import MLMHead, TwoLayerHead
from albef.model.kernels import Linear, linear
from albef.model.layers import Packing, SelfAttention, attend, kept_or_computed_again, split_heads
from albef.model.text_encoder import NORM_EPS, TextEncoder, TextLayer, init_bert
from albef.model.verbs import Encoding
from albef.model_config import ModelConfig
from albef.peers.regions import Pooler, RegionMemory, RegionModel, without_feature

BOX_NUMBERS = 4  # left, top, right, bottom; files of other systems hold more


class Fused(NamedTuple):
    """Text and regions after the cross layers. Values at padding are meaningless."""

    text: Float[Tensor, "pairs length width"]
    regions: Float[Tensor, "pairs regions width"]


class LXMERT(RegionModel):
    """The encoders of texts and of regions, the cross layers, and the heads that a task trains.

    Heads by name: "itm", "mlm", "regions" (objects, attributes and features of masked regions), "answers" (scores of
    listed answers) and "nlvr" (two classes of a text about two images). Without `heads` it has those of pre-training.
    """

    def __init__(
        self, config: ModelConfig, heads: tuple[str, ...] = ("itm", "mlm", "regions", "answers")
    ) -> None:
        super().__init__(config, heads)
        width = config.text_width
        self.image_encoder = RegionEncoder(config)
        self.text_encoder = FrozenRowsEncoder(config) if config.freeze_first_rows else TextEncoder(config)
        self.fusion_encoder = CrossEncoder(config)
        self.pooler = Pooler(width)
        self.itm_head = Linear(width, 2) if "itm" in heads else None
        self.mlm_head = MLMHead(self.text_encoder.words) if "mlm" in heads else None
        self.region_head = RegionHead(config) if "regions" in heads else None
        self.classifier: TwoLayerHead | None = None
        if "answers" in heads:
            self.classifier = TwoLayerHead(width, 2 * width, config.num_answers)
        elif "nlvr" in heads:
            self.classifier = TwoLayerHead(2 * width, 2 * width, 2)
        for part in self.children():
            init_bert(part, config.initial_std)

    def encode_image(self, regions: Regions) -> Encoding:
        """The regions of images after the object layers."""
        return without_feature(self.image_encoder(regions), regions.mask)

    def image_memory(self, image: Encoding) -> RegionMemory:
        """The encoded regions. The cross layers change them for each text, so no more can be remembered."""
        assert image.mask is not None
        return RegionMemory(image.tokens, image.mask)

    def fuse(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: RegionMemory,
        image_index: Int[Tensor, " pairs"] | None = None,
    ) -> Fused:
        """Text and regions after all cross layers. Text p sees image `image_index[p]`, or image p without an index."""
        return self.fusion_encoder(text_tokens, text_mask, of_pairs(memory, len(text_mask), image_index))

    def pooled(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: RegionMemory,
        image_index: Int[Tensor, " pairs"] | None = None,
    ) -> Float[Tensor, "pairs width"]:
        """One vector for each text with its image. The last cross layer computes [CLS] alone."""
        regions = of_pairs(memory, len(text_mask), image_index)
        return self.pooler(self.fusion_encoder.text(text_tokens, text_mask, regions, first_only=True))

    def match(
        self,
        text_tokens: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        memory: RegionMemory,
        image_index: Int[Tensor, " pairs"] | None = None,
    ) -> Float[Tensor, "pairs 2"]:
        """Logits [no match, match] of text–image pairs. A memory of one image serves all texts."""
        assert self.itm_head is not None
        return self.itm_head(self.pooled(text_tokens, text_mask, memory, image_index))

    def answer(
        self,
        text_tokens: Float[Tensor, "questions length width"],
        text_mask: Bool[Tensor, "questions length"],
        memory: RegionMemory,
    ) -> Float[Tensor, "questions answers"]:
        """A logit of each listed answer to each question."""
        assert self.classifier is not None
        return self.classifier(self.pooled(text_tokens, text_mask, memory))

    def classify(
        self,
        text_tokens: Float[Tensor, "texts length width"],
        text_mask: Bool[Tensor, "texts length"],
        memory: RegionMemory,
    ) -> Float[Tensor, "texts 2"]:
        """Class logits of each text about its two images. The memory holds all first, then all second images."""
        assert self.classifier is not None
        twice = self.pooled(torch.cat([text_tokens] * 2), torch.cat([text_mask] * 2), memory)
        return self.classifier(torch.cat(twice.chunk(2), 1))

    def masked_states(
        self,
        masked_ids: Int[Tensor, "batch length"],
        mask: Bool[Tensor, "batch length"],
        memory: RegionMemory,
        positions: Int[Tensor, " masked"],
    ) -> Float[Tensor, "masked width"]:
        """Fused states at `positions` (flat indices into batch × length), from which words are predicted."""
        tokens = self.fusion_encoder.text(self.text_encoder(masked_ids, mask), mask, memory)
        return tokens.flatten(0, 1)[positions]

    def checkpoint(self, encoders: Collection[str]) -> None:
        """Turns on activation checkpointing in these encoders ("image", "text", "fusion")."""
        self.image_encoder.checkpointing = "image" in encoders
        self.text_encoder.checkpointing = "text" in encoders
        self.fusion_encoder.checkpointing = "fusion" in encoders


class FrozenRowsEncoder(TextEncoder):
    """A text encoder that never learns the embeddings of position 0 and of token type 0, as published.

    The published tables take row 0 for padding, though [CLS] has position 0 and all tokens have type 0.
    """

    def learned(self, table: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """The table, without gradient in its first row."""
        return torch.cat([table[:1].detach(), table[1:]])


class RegionEncoder(nn.Module):
    """Embedded features and boxes of regions, followed by BERT layers (the paper's object-relationship encoder)."""

    checkpointing = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.text_width
        self.features = Linear(config.region_width, width)
        self.feature_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.boxes = Linear(BOX_NUMBERS, width)
        self.box_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.image_depth))

    def forward(self, regions: Regions) -> Float[Tensor, "images regions width"]:
        """The encoded regions. Values at padding are meaningless."""
        packing = Packing.of(regions.mask)
        features = self.feature_norm(self.features(packing.pack(regions.features)))
        boxes = self.box_norm(self.boxes(packing.pack(regions.boxes[..., :BOX_NUMBERS])))
        tokens = self.dropout((features + boxes) / 2)
        for layer in self.layers:
            tokens = kept_or_computed_again(layer, self.checkpointing, tokens, packing)
        return packing.pad(tokens)


class MutualAttention(SelfAttention):
    """Attention from text to regions and from regions to text, with the same weights."""

    called = ("by_text",)

    def forward(  # type: ignore[override]
        self,
        text: Float[Tensor, "tokens width"],
        text_packing: Packing,
        regions: Float[Tensor, "boxes width"],
        region_packing: Packing,
    ) -> tuple[Float[Tensor, "tokens width"], Float[Tensor, "boxes width"]]:
        """What each token sees of the regions of its image, and what each region sees of its text."""
        of_text = split_heads(text_packing.pad(self.qkv(text)), self.heads, 3)
        of_regions = split_heads(region_packing.pad(self.qkv(regions)), self.heads, 3)
        dropout = self.dropout if self.training else 0.0
        by_text, _ = attend(of_text[0], of_regions[1], of_regions[2], region_packing.mask, dropout)
        by_regions, _ = attend(of_regions[0], of_text[1], of_text[2], text_packing.mask, dropout)
        return self.out(text_packing.pack(by_text)), self.out(region_packing.pack(by_regions))

    def by_text(
        self,
        text: Float[Tensor, "tokens width"],
        text_packing: Packing,
        regions: Float[Tensor, "boxes width"],
        region_packing: Packing,
    ) -> Float[Tensor, "tokens width"]:
        """What each token sees of the regions of its image."""
        width = text.shape[-1]
        query_weight, pair_weight = self.qkv.weight.split([width, 2 * width])
        query_bias, pair_bias = self.qkv.bias.split([width, 2 * width])
        asked = text_packing.pad(linear(text, query_weight, query_bias))
        seen = region_packing.pad(linear(regions, pair_weight, pair_bias))
        (query,), (key, value) = split_heads(asked, self.heads, 1), split_heads(seen, self.heads, 2)
        dropout = self.dropout if self.training else 0.0
        return self.out(text_packing.pack(attend(query, key, value, region_packing.mask, dropout)[0]))


class CrossLayer(nn.Module):
    """Text and regions look at each other. Then each goes through a BERT layer of its own."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.text_width
        self.attention = MutualAttention(width, config.text_heads, config.dropout_of_attention)
        self.attention_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.text_layer = TextLayer(config)
        self.region_layer = TextLayer(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        text: Float[Tensor, "tokens width"],
        text_packing: Packing,
        regions: Float[Tensor, "boxes width"],
        region_packing: Packing,
    ) -> tuple[Float[Tensor, "tokens width"], Float[Tensor, "boxes width"]]:
        """Text and regions after the layer."""
        by_text, by_regions = self.attention(text, text_packing, regions, region_packing)
        text = self.attention_norm(text + self.dropout(by_text))
        regions = self.attention_norm(regions + self.dropout(by_regions))
        return self.text_layer(text, text_packing), self.region_layer(regions, region_packing)

    def text(
        self,
        text: Float[Tensor, "tokens width"],
        text_packing: Packing,
        regions: Float[Tensor, "boxes width"],
        region_packing: Packing,
        first_only: bool,
    ) -> Float[Tensor, "read width"]:
        """The text (or [CLS] alone) after the layer."""
        seen = self.attention.by_text(text, text_packing, regions, region_packing)
        text = self.attention_norm(text + self.dropout(seen))
        return self.text_layer(text, text_packing, first_only)


class CrossEncoder(nn.Module):
    """The cross layers. The text and the regions of a pair come in, each from its own encoder."""

    checkpointing = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(CrossLayer(config) for _ in range(config.fusion_depth))

    def forward(
        self,
        text: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        regions: RegionMemory,
    ) -> Fused:
        """Text and regions after all layers. The memory holds the image of each text."""
        packings = Packing.of(text_mask), Packing.of(regions.mask)
        tokens, boxes = self.through(list(self.layers), text, regions, *packings)
        return Fused(packings[0].pad(tokens), packings[1].pad(boxes))

    def text(
        self,
        text: Float[Tensor, "pairs length width"],
        text_mask: Bool[Tensor, "pairs length"],
        regions: RegionMemory,
        first_only: bool = False,
    ) -> Float[Tensor, "pairs read width"]:
        """The text (or [CLS] alone) after all layers. What the last layer makes of the regions is left out."""
        packings = Packing.of(text_mask), Packing.of(regions.mask)
        *before, last = self.layers
        assert isinstance(last, CrossLayer)
        tokens, boxes = self.through(before, text, regions, *packings)
        read = kept_or_computed_again(
            last.text, self.checkpointing, tokens, packings[0], boxes, packings[1], first_only
        )
        return read[:, None] if first_only else packings[0].pad(read)

    def through(
        self,
        layers: list[nn.Module],
        text: Float[Tensor, "pairs length width"],
        regions: RegionMemory,
        text_packing: Packing,
        region_packing: Packing,
    ) -> tuple[Float[Tensor, "tokens width"], Float[Tensor, "boxes width"]]:
        """Text and regions after these layers, packed."""
        tokens, boxes = text_packing.pack(text), region_packing.pack(regions.tokens)
        for layer in layers:
            tokens, boxes = kept_or_computed_again(
                layer, self.checkpointing, tokens, text_packing, boxes, region_packing
            )
        return tokens, boxes


class RegionScores(NamedTuple):
    """What is predicted of regions: logits of their objects and attributes, and their features."""

    objects: Float[Tensor, "boxes objects"]
    attributes: Float[Tensor, "boxes attributes"]
    features: Float[Tensor, "masked region_width"]


class RegionHead(nn.Module):
    """Predicts objects, attributes and features of regions, from one hidden layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.text_width
        self.transform = Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.objects = Linear(width, config.num_objects)
        self.attributes = Linear(width, config.num_attributes)
        self.features = Linear(width, config.region_width)

    def forward(
        self, states: Float[Tensor, "boxes width"], masked: Int[Tensor, " masked"] | None = None
    ) -> RegionScores:
        """The predictions for regions, the features only for those that `masked` names (None: all)."""
        hidden = self.norm(F.gelu(self.transform(states)))
        chosen = hidden if masked is None else hidden.index_select(0, masked)
        return RegionScores(self.objects(hidden), self.attributes(hidden), self.features(chosen))


def of_pairs(memory: RegionMemory, pairs: int, image_index: Int[Tensor, " pairs"] | None) -> RegionMemory:
    """The memory with one row for each pair. A memory of one image serves all pairs."""
    if image_index is not None:
        return memory.select(image_index)
    return RegionMemory(memory.tokens.expand(pairs, -1, -1), memory.mask.expand(pairs, -1))
