"""What the systems on region features share: regions of images, and one transformer over text and regions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from albef.model.kernels import Linear
from albef.model.layers import Packing, kept_or_computed_again
from albef.model.text_encoder import TextLayer, cls
from albef.model.verbs import Encoding
from albef.model_config import ModelConfig


@dataclass(frozen=True)
class RegionMemory:
    """The memory of images: their regions, embedded."""

    tokens: Float[Tensor, "images regions width"]
    mask: Bool[Tensor, "images regions"]

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def bytes_per_image(self) -> int:
        """What the embedded regions of an image take."""
        return self.tokens[0].nbytes

    def select(self, image_index: Int[Tensor, " chosen"]) -> RegionMemory:
        """The memory of these images."""
        return RegionMemory(self.tokens.index_select(0, image_index), self.mask[image_index])


class JointEncoder(nn.Module):
    """BERT layers over a text and the regions of its image, as one sequence."""

    checkpointing = False

    def __init__(self, config: ModelConfig, depth: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(depth))

    def forward(
        self,
        tokens: Float[Tensor, "pairs places width"],
        mask: Bool[Tensor, "pairs places"],
        first_only: bool = False,
    ) -> Float[Tensor, "pairs read width"]:
        """The last states. Padding may stand anywhere; its states are zeros on a CPU, and meaningless elsewhere.

        With `first_only` the last layer computes [CLS] alone (one place), which is all that the pooler reads.
        """
        packing, last = Packing.of(mask), len(self.layers) - 1
        states = packing.pack(tokens)
        for depth, layer in enumerate(self.layers):
            alone = first_only and depth == last
            states = kept_or_computed_again(layer, self.checkpointing, states, packing, alone)
        return states[:, None] if first_only else packing.pad(states)


class Pooler(nn.Module):
    """One vector for a pair: tanh of a linear layer over the first state, as in BERT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = Linear(width, width)

    def forward(self, states: Float[Tensor, "pairs places width"]) -> Float[Tensor, "pairs width"]:
        """The pooled states."""
        return torch.tanh(self.linear(cls(states)))


def without_feature(
    tokens: Float[Tensor, "batch length width"], mask: Bool[Tensor, "batch length"]
) -> Encoding:
    """An image or a text of a system that has no features to compare: the feature has length 0."""
    return Encoding(tokens, mask, tokens.new_zeros(len(tokens), 0))


def joined(
    text: Float[Tensor, "pairs length width"],
    text_mask: Bool[Tensor, "pairs length"],
    regions: RegionMemory,
) -> tuple[Float[Tensor, "pairs places width"], Bool[Tensor, "pairs places"]]:
    """Text and regions side by side, and which of the places are real. A memory of one image serves all texts."""
    shape = (len(text), -1, -1)
    tokens = torch.cat([text, regions.tokens.expand(shape)], 1)
    return tokens, torch.cat([text_mask, regions.mask.expand(shape[:2])], 1)
