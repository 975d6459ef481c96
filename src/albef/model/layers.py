"""Attention and feed-forward layers shared by the image, text and fusion encoders."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


def attend(
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch heads keys width"],
    value: Float[Tensor, "batch heads keys width"],
    mask: Bool[Tensor, "batch keys"] | None,
    dropout: float,
    keep_attention: bool = False,
) -> tuple[Float[Tensor, "batch queries joined"], Float[Tensor, "batch heads queries keys"] | None]:
    """The attended values with heads joined, and the attention probabilities if they are to be kept.

    Softmax(Q Kᵀ / √d) V over the keys where `mask` is true. The probabilities that are kept are those before
    dropout, since maps of attention are drawn from them.
    """
    additive = None
    if mask is not None:
        additive = torch.zeros(mask.shape, dtype=query.dtype, device=query.device)
        additive = additive.masked_fill(~mask, torch.finfo(query.dtype).min)[:, None, None, :]
    probabilities = None
    # On CPUs a plain product beat scaled_dot_product_attention in bf16 (measured); elsewhere SDPA is the fast one.
    if keep_attention or (query.device.type == "cpu" and query.dtype == torch.bfloat16):
        scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
        probabilities = (scores if additive is None else scores + additive).softmax(-1)
        context = F.dropout(probabilities, dropout, training=dropout > 0) @ value
    else:
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=additive, dropout_p=dropout)
    return context.transpose(1, 2).flatten(2), probabilities if keep_attention else None


def split_heads(states: Float[Tensor, "batch length joined"], heads: int, parts: int) -> tuple[Tensor, ...]:
    """`parts` tensors [batch, heads, length, width] out of their concatenation along the last dimension."""
    batch, length, _ = states.shape
    return states.view(batch, length, parts, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)


class SelfAttention(nn.Module):
    """Multi-head self-attention whose query, key and value projections are one product."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        states: Float[Tensor, "batch length width"],
        mask: Bool[Tensor, "batch length"] | None = None,
        first_only: bool = False,
    ) -> Float[Tensor, "batch queries width"]:
        """What each position gathers from all; with `first_only`, what the first position ([CLS]) gathers."""
        if first_only:
            width = states.shape[-1]
            query_weight, pair_weight = self.qkv.weight.split([width, 2 * width])
            query_bias, pair_bias = self.qkv.bias.split([width, 2 * width])
            (query,) = split_heads(F.linear(states[:, :1], query_weight, query_bias), self.heads, 1)
            key, value = split_heads(F.linear(states, pair_weight, pair_bias), self.heads, 2)
        else:
            query, key, value = split_heads(self.qkv(states), self.heads, 3)
        context, _ = attend(query, key, value, mask, self.dropout if self.training else 0.0)
        return self.out(context)


class CrossAttention(nn.Module):
    """Multi-head attention from text to image tokens; keys and values come from `remember`, once per image."""

    def __init__(self, width: int, memory_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(memory_width, 2 * width)
        self.out = nn.Linear(width, width)

    def remember(self, tokens: Float[Tensor, "images patches memory_width"]) -> Float[Tensor, "images patches both"]:
        """Keys and values of the image tokens, side by side."""
        return self.key_value(tokens)

    def forward(
        self,
        states: Float[Tensor, "pairs length width"],
        memory: Float[Tensor, "pairs patches both"],
        memory_mask: Bool[Tensor, "pairs patches"] | None,
        keep_attention: bool = False,
    ) -> tuple[Float[Tensor, "pairs length width"], Float[Tensor, "pairs heads length patches"] | None]:
        """What each text position gathers from its image, and the attention if it is to be kept."""
        (query,) = split_heads(self.query(states), self.heads, 1)
        key, value = split_heads(memory, self.heads, 2)
        dropout = self.dropout if self.training else 0.0
        context, attention = attend(query, key, value, memory_mask, dropout, keep_attention)
        return self.out(context), attention


class FeedForward(nn.Module):
    """Two linear layers around an exact GELU."""

    def __init__(self, width: int, inner_width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, inner_width)
        self.down = nn.Linear(inner_width, width)

    def forward(self, states: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape width"]:
        """The transformed states."""
        return self.down(F.gelu(self.up(states)))
