"""Heads of more than one layer. The ITM head and the projections are single linear layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from albef.model.kernels import Linear, linear
from albef.model.text_encoder import NORM_EPS


class TiedHead(nn.Module):
    """Predictions at a position. The output weights belong to another module."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.transform = Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(
        self, states: Float[Tensor, "positions width"], weight: Float[Tensor, "outputs width"]
    ) -> Float[Tensor, "positions outputs"]:
        """The outputs for each position."""
        return linear(self.norm(F.gelu(self.transform(states))), weight, self.bias)


class MLMHead(TiedHead):
    """Logits over the vocabulary at a position. The output weights are the word embeddings."""

    def __init__(self, words: nn.Embedding) -> None:
        super().__init__(words.embedding_dim, words.num_embeddings)


class TwoLayerHead(nn.Module):
    """Logits of answers from a list, or of the classes of regions: linear, GELU, norm, linear."""

    def __init__(self, width: int, inner_width: int, classes: int) -> None:
        super().__init__()
        self.hidden = Linear(width, inner_width)
        self.norm = nn.LayerNorm(inner_width, eps=NORM_EPS)
        self.out = Linear(inner_width, classes)

    def forward(self, states: Float[Tensor, "rows width"]) -> Float[Tensor, "rows classes"]:
        """Logits of the classes."""
        return self.out(self.norm(F.gelu(self.hidden(states))))


class Classifier(nn.Module):
    """Logits of a few classes from a fused [CLS] state (published as `cls_head`)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.hidden = Linear(width, width)
        self.out = Linear(width, classes)

    def forward(self, states: Float[Tensor, "pairs width"]) -> Float[Tensor, "pairs classes"]:
        """Logits of the classes."""
        return self.out(F.relu(self.hidden(states)))
