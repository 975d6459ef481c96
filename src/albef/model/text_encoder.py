"""One BERT as two encoders: the lower layers encode text, the upper layers fuse it with the image (paper §3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from albef.config import ModelConfig
from albef.model.layers import (
    Asking,
    CrossAttention,
    FeedForward,
    Packing,
    SelfAttention,
    kept_or_computed_again,
)

NORM_EPS = 1e-12


@dataclass(frozen=True)
class KeyValues:
    """The memory of images: keys and values for the cross-attention of every fusion layer."""

    layers: tuple[Float[Tensor, "images patches both"], ...]
    mask: Bool[Tensor, "images patches"] | None

    def __len__(self) -> int:
        return len(self.layers[0])

    @property
    def bytes_per_image(self) -> int:
        """What the keys and values of an image take."""
        return sum(layer[0].nbytes for layer in self.layers)

    def select(self, image_index: Int[Tensor, " chosen"]) -> KeyValues:
        """The memory of these images."""
        mask = None if self.mask is None else self.mask[image_index]
        return KeyValues(tuple(layer.index_select(0, image_index) for layer in self.layers), mask)

    def asked_by(
        self, packing: Packing, image_index: Int[Tensor, " texts"] | None, keep_attention: bool = False
    ) -> Asked:
        """The queries of texts to this memory. Text p sees image `image_index[p]`, or image p without an index.

        On a CPU, or with a single image, the queries of all texts about an image form one row, so that its keys and
        values are not copied. This is possible since queries do not attend to each other. Kept attention is by text.
        """
        images = len(self)
        firsts = Packing.whole(len(packing.mask), 1, packing.mask.device)
        if images == 1 and not keep_attention:
            return Asked(Asking(packing.in_one_row()), Asking(firsts.in_one_row()))
        if image_index is None or keep_attention or packing.places is None:
            return Asked(Asking(packing, image_index), Asking(firsts, image_index))
        every, alone = (one.gathered(image_index, images) for one in (packing, firsts))
        return Asked(Asking(every), Asking(alone))


class Asked(NamedTuple):
    """Queries to the images of a memory: from all tokens of the texts, or from [CLS] alone."""

    tokens: Asking
    firsts: Asking


class Fused(NamedTuple):
    """Text tokens after fusion, and the cross-attention of each layer if it was kept."""

    tokens: Float[Tensor, "pairs read width"]
    attention: tuple[Float[Tensor, "pairs heads read patches"], ...]


class TextLayer(nn.Module):
    """A post-norm BERT layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.text_width
        self.attention = SelfAttention(width, config.text_heads, config.dropout_of_attention)
        self.attention_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = FeedForward(width, config.text_mlp_width)
        self.mlp_norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, tokens: Float[Tensor, "real width"], packing: Packing, first_only: bool = False
    ) -> Float[Tensor, "read width"]:
        """The tokens (or [CLS] alone) after self-attention and feed-forward."""
        read = self.gather(tokens, packing, first_only)
        return self.mlp_norm(read + self.dropout(self.mlp(read)))

    def at(
        self, tokens: Float[Tensor, "real width"], packing: Packing, rows: Int[Tensor, " read"]
    ) -> Float[Tensor, "read width"]:
        """The tokens in these rows after the layer, which attend to all tokens of their text."""
        seen = self.attention.packed(tokens, packing, rows)
        read = self.attention_norm(tokens.index_select(0, rows) + self.dropout(seen))
        return self.mlp_norm(read + self.dropout(self.mlp(read)))

    def gather(
        self, tokens: Float[Tensor, "real width"], packing: Packing, first_only: bool = False
    ) -> Float[Tensor, "read width"]:
        """The tokens (or [CLS] alone) after self-attention."""
        if first_only:
            read, gathered = packing.firsts(tokens), self.attention.first(tokens, packing)
        else:
            read, gathered = tokens, self.attention.packed(tokens, packing)
        return self.attention_norm(read + self.dropout(gathered))


class FusionLayer(TextLayer):
    """A BERT layer with cross-attention to tokens of `memory_width`, between self-attention and feed-forward."""

    def __init__(self, config: ModelConfig, memory_width: int | None) -> None:
        super().__init__(config)
        self.cross_attention = CrossAttention(
            config.text_width, memory_width, config.text_heads, config.dropout_of_attention
        )
        self.cross_attention_norm = nn.LayerNorm(config.text_width, eps=NORM_EPS)

    def fuse(
        self,
        tokens: Float[Tensor, "real width"],
        packing: Packing,
        asking: Asking,
        memory: Float[Tensor, "images patches both"],
        memory_mask: Bool[Tensor, "images patches"] | None,
        first_only: bool = False,
        keep_attention: bool = False,
    ) -> tuple[Float[Tensor, "read width"], Float[Tensor, "rows heads length patches"] | None]:
        """The tokens (or [CLS] alone) after the whole layer, and the cross-attention if it is kept."""
        read = self.gather(tokens, packing, first_only)
        return self.look(read, asking, memory, memory_mask, keep_attention)

    def look(
        self,
        read: Float[Tensor, "read width"],
        asking: Asking,
        memory: Float[Tensor, "images patches both"],
        memory_mask: Bool[Tensor, "images patches"] | None,
        keep_attention: bool = False,
    ) -> tuple[Float[Tensor, "read width"], Float[Tensor, "rows heads length patches"] | None]:
        """The result of `gather` after cross-attention to the image of each row in `asking`, and feed-forward."""
        seen, attention = self.cross_attention(read, asking, memory, memory_mask, keep_attention)
        read = self.cross_attention_norm(read + self.dropout(seen))
        return self.mlp_norm(read + self.dropout(self.mlp(read))), attention


class TextEncoder(nn.Module):
    """Word, position and type embeddings followed by the text layers."""

    checkpointing = False

    def __init__(self, config: ModelConfig, types: int = 2) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.text_width)
        self.positions = nn.Embedding(config.max_positions, config.text_width)
        # Published weights have two token types or more. All tokens here are of the first.
        self.types = nn.Embedding(types, config.text_width)
        self.norm = nn.LayerNorm(config.text_width, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.text_depth))

    def forward(
        self, ids: Int[Tensor, "batch length"], mask: Bool[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length width"]:
        """Text tokens before fusion. Values at padding are meaningless."""
        packing = Packing.of(mask)
        words = self.words(packing.pack(ids))
        positions = packing.at_positions(self.learned(self.positions.weight))
        tokens = self.dropout(self.norm(words + positions + self.learned(self.types.weight)[0]))
        for layer in self.layers:
            tokens = kept_or_computed_again(layer, self.checkpointing, tokens, packing)
        return packing.pad(tokens)

    def learned(self, table: Float[Tensor, "rows width"]) -> Float[Tensor, "rows width"]:
        """A table of positions or types, with gradient in the rows that are learned: all of them."""
        return table


class FusionEncoder(nn.Module):
    """The fusion layers (the paper's multimodal encoder)."""

    checkpointing = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            FusionLayer(config, config.image_width) for _ in range(config.fusion_depth)
        )

    def remember(
        self, tokens: Float[Tensor, "images patches width"], mask: Bool[Tensor, "images patches"] | None
    ) -> KeyValues:
        """Keys and values of the image tokens for every layer."""
        return KeyValues(tuple(layer.cross_attention.remember(tokens) for layer in self.stack()), mask)

    def stack(self) -> list[FusionLayer]:
        """The layers, from the first."""
        return [layer for layer in self.layers if isinstance(layer, FusionLayer)]

    def forward(
        self,
        tokens: Float[Tensor, "pairs length width"],
        mask: Bool[Tensor, "pairs length"],
        memory: KeyValues,
        image_index: Int[Tensor, " pairs"] | None = None,
        first_only: bool = False,
        keep_attention: bool = False,
    ) -> Fused:
        """The fused tokens. Text p sees image `image_index[p]` of the memory, or image p without an index.

        With `first_only` the last layer computes [CLS] alone (length 1), which is all that ITM reads.
        """
        kept: list[Tensor] = []
        packing = Packing.of(mask)
        every, firsts = memory.asked_by(packing, image_index, keep_attention)
        states, last = packing.pack(tokens), len(self.layers) - 1
        for depth, (layer, layer_memory) in enumerate(zip(self.stack(), memory.layers, strict=True)):
            alone = first_only and depth == last
            states, attention = kept_or_computed_again(
                layer.fuse,
                self.checkpointing,
                states,
                packing,
                firsts if alone else every,
                layer_memory,
                memory.mask,
                alone,
                keep_attention,
            )
            if attention is not None:
                kept.append(attention)
        fused = states[:, None] if first_only else packing.pad(states)
        return Fused(fused, tuple(kept))

    def begin(
        self, tokens: Float[Tensor, "texts length width"], mask: Bool[Tensor, "texts length"]
    ) -> Float[Tensor, "texts length width"]:
        """The part of fusion that needs no image: up to the first layer's self-attention."""
        packing = Packing.of(mask)
        return packing.pad(self.stack()[0].gather(packing.pack(tokens), packing))

    def finish(
        self,
        begun: Float[Tensor, "texts length width"],
        mask: Bool[Tensor, "texts length"],
        memory: KeyValues,
        image_index: Int[Tensor, " texts"] | None = None,
    ) -> Float[Tensor, "texts width"]:
        """The fused [CLS], from the result of `begin`."""
        packing = Packing.of(mask)
        every, firsts = memory.asked_by(packing, image_index)
        read, last = packing.pack(begun), len(self.layers) - 1
        for depth, (layer, layer_memory) in enumerate(zip(self.stack(), memory.layers, strict=True)):
            if depth:
                read = layer.gather(read, packing, first_only=depth == last)
            elif last == 0:
                read = packing.firsts(read)
            read, _ = layer.look(read, firsts if depth == last else every, layer_memory, memory.mask)
        return read


class PairedFusionLayer(nn.Module):
    """Two fusion layers, one for each image of a pair. They share the key and value projections, as published."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.first = FusionLayer(config, config.image_width)
        self.second = FusionLayer(config, None)

    def fuse(
        self,
        tokens: Float[Tensor, "real width"],
        packing: Packing,
        memory: Float[Tensor, "images patches both"],
        memory_mask: Bool[Tensor, "images patches"] | None,
        first_only: bool,
    ) -> Float[Tensor, "read width"]:
        """The tokens (or [CLS] alone) after seeing the first images and then the second images."""
        first, second = memory.chunk(2)
        first_mask, second_mask = (None, None) if memory_mask is None else memory_mask.chunk(2)
        every = Asking(packing)
        asking = Asking(Packing.whole(len(first), 1, tokens.device)) if first_only else every
        tokens, _ = self.first.fuse(tokens, packing, every, first, first_mask)
        tokens, _ = self.second.fuse(tokens, packing, asking, second, second_mask, first_only)
        return tokens


class PairedFusionEncoder(nn.Module):
    """The fusion layers for texts about two images (paper §5.4)."""

    checkpointing = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(PairedFusionLayer(config) for _ in range(config.fusion_depth))

    def remember(
        self, tokens: Float[Tensor, "images patches width"], mask: Bool[Tensor, "images patches"] | None
    ) -> KeyValues:
        """Keys and values for every layer. The images are all first images, then all second images."""
        return KeyValues(tuple(layer.first.cross_attention.remember(tokens) for layer in self.stack()), mask)

    def stack(self) -> list[PairedFusionLayer]:
        """The layers, from the first."""
        return [layer for layer in self.layers if isinstance(layer, PairedFusionLayer)]

    def forward(
        self,
        tokens: Float[Tensor, "pairs length width"],
        mask: Bool[Tensor, "pairs length"],
        memory: KeyValues,
        first_only: bool = False,
    ) -> Fused:
        """The fused tokens. With `first_only` the last layer computes [CLS] alone (length 1)."""
        packing = Packing.of(mask)
        states, last = packing.pack(tokens), len(self.layers) - 1
        for depth, (layer, layer_memory) in enumerate(zip(self.stack(), memory.layers, strict=True)):
            alone = first_only and depth == last
            states = kept_or_computed_again(
                layer.fuse, self.checkpointing, states, packing, layer_memory, memory.mask, alone
            )
        return Fused(states[:, None] if first_only else packing.pad(states), ())


def init_bert(module: nn.Module, std: float) -> None:
    """Initialises a module as BERT does: normal weights, zero biases.

    The std of positions and types is at most BERT's 0.02. Narrow models have a larger std. With it, positions and types
    would make up two thirds of every token, and all tokens would query an image for nearly the same.
    """
    for name, part in module.named_modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            nn.init.normal_(part.weight, std=min(std, 0.02) if name in ("positions", "types") else std)
        if isinstance(part, nn.Linear):
            nn.init.zeros_(part.bias)


def cls(tokens: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch width"]:
    """The state of the first token ([CLS]), which stands for the whole sequence."""
    return torch.select(tokens, 1, 0)
