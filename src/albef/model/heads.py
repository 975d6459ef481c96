"""Heads of more than one layer. The ITM head and the projections are single linear layers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from albef.model.kernels import Linear, linear
from albef.model.text_encoder import NORM_EPS


class MLMHead(nn.Module):
    """Logits over the vocabulary at a position. The output weights are the word embeddings."""

    def __init__(self, words: nn.Embedding) -> None:
        super().__init__()
        width = words.embedding_dim
        self.transform = Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.bias = nn.Parameter(torch.zeros(words.num_embeddings))

    def forward(
        self, states: Float[Tensor, "positions width"], words: Float[Tensor, "vocabulary width"]
    ) -> Float[Tensor, "positions vocabulary"]:
        """Logits over the vocabulary."""
        return linear(self.norm(F.gelu(self.transform(states))), words, self.bias)


class Classifier(nn.Module):
    """Logits of a few classes from a fused [CLS] state (published as `cls_head`)."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.hidden = Linear(width, width)
        self.out = Linear(width, classes)

    def forward(self, states: Float[Tensor, "pairs width"]) -> Float[Tensor, "pairs classes"]:
        """Logits of the classes."""
        return self.out(F.relu(self.hidden(states)))
