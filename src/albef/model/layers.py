"""Attention and feed-forward layers shared by the image, text and fusion encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from albef.model import kernels
from albef.model.kernels import Linear, linear

Result = TypeVar("Result")


def attend(
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch heads keys width"],
    value: Float[Tensor, "batch heads keys width"],
    mask: Bool[Tensor, "batch keys"] | Bool[Tensor, "batch queries keys"] | None,
    dropout: float,
    keep_attention: bool = False,
) -> tuple[Float[Tensor, "batch queries joined"], Float[Tensor, "batch heads queries keys"] | None]:
    """Softmax(Q Kᵀ / √d) V over the keys where `mask` is true, heads joined, and the probabilities if asked for.

    The probabilities are those before dropout, since attention maps are made from them.
    """
    additive = None
    if mask is not None:
        additive = torch.zeros(mask.shape, dtype=query.dtype, device=query.device)
        additive = additive.masked_fill(~mask, torch.finfo(query.dtype).min)
        additive = additive[:, None, None] if mask.ndim == 2 else additive[:, None]
    kept = None
    if keep_attention:
        kept = kernels.probabilities(query, key, additive)
        context = F.dropout(kept, dropout, training=dropout > 0) @ value
    else:
        context = kernels.attention(query, key, value, additive, dropout)
    return context.transpose(1, 2).flatten(2), kept


def split_heads(states: Float[Tensor, "batch length joined"], heads: int, parts: int) -> tuple[Tensor, ...]:
    """Splits a concatenation along the last dimension into `parts` tensors [batch, heads, length, width]."""
    batch, length, _ = states.shape
    # Split before the heads move to the front, so that gradients are concatenated in the layout of `states`.
    return tuple(part.transpose(1, 2) for part in states.view(batch, length, parts, heads, -1).unbind(2))


def packs(device: torch.device) -> bool:
    """Whether padding is removed on this device: on a CPU only.

    On a GPU the host would have to wait for the number of real tokens.
    """
    return device.type == "cpu"


class Packing(NamedTuple):
    """Where the real tokens of padded texts are. Linear layers see them without padding, attention with padding.

    On a GPU padding passes through the layers like real tokens, and only the attention mask leaves it out. Then
    nothing is moved: the methods give the same memory in another shape.
    """

    mask: Bool[Tensor, "batch length"]
    visible: (
        Bool[Tensor, "batch length"] | Bool[Tensor, "batch length length"]
    )  # what self-attention may attend to
    places: Int[Tensor, " real"] | None = None  # flat indices into batch × length; None: all of them
    first: Int[Tensor, " batch"] | None = None  # index of each text's first token among the real ones

    @classmethod
    def of(cls, mask: Bool[Tensor, "batch length"]) -> Packing:
        """The packing for bidirectional attention. Padding follows each text."""
        if not packs(mask.device):
            return cls(mask, mask)
        lengths = mask.sum(1)
        return cls(mask, mask, mask.flatten().nonzero().squeeze(1), lengths.cumsum(0) - lengths)

    @classmethod
    def causal(cls, mask: Bool[Tensor, "batch length"]) -> Packing:
        """The packing for causal attention. Padding follows each text."""
        length = mask.shape[1]
        before = torch.ones(length, length, dtype=torch.bool, device=mask.device).tril()
        return cls.of(mask)._replace(visible=mask[:, None] & before)

    @classmethod
    def whole(cls, texts: int, length: int, device: torch.device) -> Packing:
        """The packing of texts that have no padding."""
        mask = torch.ones(texts, length, dtype=torch.bool, device=device)
        return cls(mask, mask)

    def gathered(self, row: Int[Tensor, " batch"], rows: int) -> Packing:
        """The same tokens, with all texts of a row joined. Only for queries, which do not attend to each other.

        Only on a CPU: on a GPU the host would have to wait for the length of the longest row.
        """
        length = self.mask.shape[1]
        row_of_token = row.repeat_interleave(length) if self.places is None else row[self.places // length]
        counts = row_of_token.bincount(minlength=rows)
        first = counts.cumsum(0) - counts
        order = row_of_token.argsort(stable=True)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order)) - first[row_of_token[order]]
        length = int(counts.max())
        mask = torch.arange(length) < counts[:, None]
        return Packing(mask, mask, row_of_token * length + place, first)

    def in_one_row(self) -> Packing:
        """The same tokens one after the other, as if they were one text."""
        tokens = self.mask.numel() if self.places is None else len(self.places)
        return Packing.whole(1, tokens, self.mask.device)

    def pack(self, padded: Shaped[Tensor, "batch length *width"]) -> Shaped[Tensor, "real *width"]:
        """The real tokens of all texts, one after the other."""
        every = padded.flatten(0, 1)
        return every if self.places is None else every[self.places]

    def pad(self, packed: Float[Tensor, "real width"]) -> Float[Tensor, "batch length width"]:
        """The tokens in their padded places, zeros elsewhere."""
        batch, length = self.mask.shape
        if self.places is not None:
            places = packed.new_zeros(batch * length, packed.shape[-1])
            packed = places.index_copy(0, self.places, packed)
        return packed.view(batch, length, -1)

    def rows_of(self, positions: Int[Tensor, " read"]) -> Int[Tensor, " read"]:
        """Where the tokens at these flat indices into batch × length are among the packed ones."""
        return positions if self.places is None else (self.mask.flatten().cumsum(0) - 1)[positions]

    def firsts(self, packed: Float[Tensor, "real width"]) -> Float[Tensor, "batch width"]:
        """The first token ([CLS]) of each text."""
        return self.pad(packed)[:, 0] if self.first is None else packed[self.first]

    def at_positions(self, table: Float[Tensor, "positions width"]) -> Float[Tensor, "real width"]:
        """For each real token the row of a table at its position in its text, such as position embeddings."""
        batch, length = self.mask.shape
        if self.places is not None:
            return F.embedding(self.places % length, table)
        return table[:length].expand(batch, -1, -1).flatten(0, 1)


class Asking(NamedTuple):
    """Queries to the images of a memory. Each row of the packing sees one image."""

    packing: Packing
    image: Int[Tensor, " rows"] | None = None  # which image each row sees; None: row r sees image r


class SelfAttention(nn.Module):
    """Multi-head self-attention whose query, key and value projections are one product."""

    called: ClassVar[tuple[str, ...]] = ("packed", "first")  # in training, besides `forward`

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def forward(self, states: Float[Tensor, "batch length width"]) -> Float[Tensor, "batch length width"]:
        """Attention among all positions, without a mask."""
        query, key, value = split_heads(self.qkv(states), self.heads, 3)
        return self.out(attend(query, key, value, None, self.dropout if self.training else 0.0)[0])

    def watched(
        self, states: Float[Tensor, "batch length width"]
    ) -> tuple[Float[Tensor, "batch length width"], Float[Tensor, "batch heads 1 length"]]:
        """The same result, and the attention probabilities of the first token ([CLS])."""
        query, key, value = split_heads(self.qkv(states), self.heads, 3)
        first, row = attend(query[:, :, :1], key, value, None, 0.0, keep_attention=True)
        others, _ = attend(query[:, :, 1:], key, value, None, 0.0)
        assert row is not None
        return self.out(torch.cat([first, others], 1)), row

    def packed(
        self, states: Float[Tensor, "real width"], packing: Packing, rows: Int[Tensor, " read"] | None = None
    ) -> Float[Tensor, "read width"]:
        """Attention of each real token (or of those in these rows) to the tokens of its text."""
        query, key, value = split_heads(packing.pad(self.qkv(states)), self.heads, 3)
        dropout = self.dropout if self.training else 0.0
        seen = packing.pack(attend(query, key, value, packing.visible, dropout)[0])
        return self.out(seen if rows is None else seen.index_select(0, rows))

    def first(self, states: Float[Tensor, "real width"], packing: Packing) -> Float[Tensor, "batch width"]:
        """Attention of the first token ([CLS]) of each text."""
        width = states.shape[-1]
        query_weight, pair_weight = self.qkv.weight.split([width, 2 * width])
        query_bias, pair_bias = self.qkv.bias.split([width, 2 * width])
        asked = linear(packing.firsts(states), query_weight, query_bias)[:, None]
        (query,) = split_heads(asked, self.heads, 1)
        key, value = split_heads(packing.pad(linear(states, pair_weight, pair_bias)), self.heads, 2)
        dropout = self.dropout if self.training else 0.0
        return self.out(attend(query, key, value, packing.mask, dropout)[0].squeeze(1))


class CrossAttention(nn.Module):
    """Multi-head attention from text to image tokens. Keys and values come from `remember`, once per image.

    Without a `memory_width` it has no key and value projections and uses the memory of another layer.
    """

    def __init__(self, width: int, memory_width: int | None, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = Linear(width, width)
        self.key_value = None if memory_width is None else Linear(memory_width, 2 * width)
        self.out = Linear(width, width)

    def remember(
        self, tokens: Float[Tensor, "images patches memory_width"]
    ) -> Float[Tensor, "images patches both"]:
        """Keys and values of the image tokens, side by side."""
        assert self.key_value is not None
        # Two dimensions only: with three the linear layer returns a view, which FSDP2 does not accept.
        return self.key_value(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])

    def forward(
        self,
        states: Float[Tensor, "tokens width"],
        asking: Asking,
        memory: Float[Tensor, "images patches both"],
        memory_mask: Bool[Tensor, "images patches"] | None,
        keep_attention: bool = False,
    ) -> tuple[Float[Tensor, "tokens width"], Float[Tensor, "rows heads length patches"] | None]:
        """Attention of each text token to the image of its row in `asking`, and the probabilities by row."""
        if asking.image is not None:
            # Selected here, so that a layer under activation checkpointing keeps no copy.
            memory = memory[asking.image]
            memory_mask = None if memory_mask is None else memory_mask[asking.image]
        packing = asking.packing
        (query,) = split_heads(packing.pad(self.query(states)), self.heads, 1)
        key, value = split_heads(memory, self.heads, 2)
        dropout = self.dropout if self.training else 0.0
        context, attention = attend(query, key, value, memory_mask, dropout, keep_attention)
        return self.out(packing.pack(context)), attention


def kept_or_computed_again(layer: Callable[..., Result], checkpointing: bool, *inputs: object) -> Result:
    """The layer's output. With `checkpointing`, activations are recomputed in the backward pass."""
    if checkpointing and torch.is_grad_enabled():
        return cast(Result, checkpoint(layer, *inputs, use_reentrant=False))
    return layer(*inputs)


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.up = Linear(width, inner_width)
        self.down = Linear(inner_width, width)

    def forward(self, states: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape width"]:
        """The transformed states."""
        return self.down(F.gelu(self.up(states)))
