"""The decoder that writes answers from the fused tokens of a question (paper §5.3)."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from albef.config import ModelConfig
from albef.model.heads import MLMHead
from albef.model.layers import Packing
from albef.model.text_encoder import NORM_EPS, FusionLayer, KeyValues


class AnswerDecoder(nn.Module):
    """BERT layers with causal self-attention, cross-attention to the question, and a head over the vocabulary."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.words = nn.Embedding(config.vocab_size, config.text_width)
        self.positions = nn.Embedding(config.max_positions, config.text_width)
        self.types = nn.Embedding(2, config.text_width)
        self.norm = nn.LayerNorm(config.text_width, eps=NORM_EPS)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            FusionLayer(config, config.text_width) for _ in range(config.fusion_depth)
        )
        self.head = MLMHead(self.words)

    def stack(self) -> list[FusionLayer]:
        """The layers, from the first."""
        return [layer for layer in self.layers if isinstance(layer, FusionLayer)]

    def remember(
        self, tokens: Float[Tensor, "questions length width"], mask: Bool[Tensor, "questions length"]
    ) -> KeyValues:
        """Keys and values of fused questions for every layer, computed once per question."""
        return KeyValues(tuple(layer.cross_attention.remember(tokens) for layer in self.stack()), mask)

    def forward(
        self,
        ids: Int[Tensor, "answers length"],
        mask: Bool[Tensor, "answers length"],
        memory: KeyValues,
        question_index: Int[Tensor, " answers"],
        positions: Int[Tensor, " read"],
    ) -> Float[Tensor, "read width"]:
        """States at `positions` (flat indices into answers × length), from which the next tokens are predicted.

        Answer a attends to row `question_index[a]` of the memory.
        """
        packing = Packing.causal(mask)
        words = self.words(packing.pack(ids))
        states = words + packing.at_positions(self.positions.weight) + self.types.weight[0]
        states = self.dropout(self.norm(states))
        asking = memory.asked_by(packing, question_index).tokens
        for layer, layer_memory in zip(self.stack(), memory.layers, strict=True):
            states, _ = layer.fuse(states, packing, asking, layer_memory, memory.mask)
        return packing.pad(states).flatten(0, 1)[positions]

    def predict_words(self, states: Float[Tensor, "read width"]) -> Float[Tensor, "read vocabulary"]:
        """Logits of the tokens that follow the states that `forward` gave."""
        return self.head(states, self.words.weight)


def predicted(mask: Bool[Tensor, "answers length"]) -> Int[Tensor, " tokens"]:
    """Flat indices of the tokens that have a next token in their answer, which is at index + 1."""
    follows = torch.zeros_like(mask)
    follows[:, :-1] = mask[:, 1:]
    return follows.flatten().nonzero().squeeze(1)
