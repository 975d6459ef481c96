"""What the systems on region features share: the memory of regions, verbs, and one transformer over text and regions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from albef.data.regions import Regions
from albef.model.heads import MLMHead
from albef.model.kernels import Linear
from albef.model.layers import Packing, kept_or_computed_again
from albef.model.text_encoder import TextEncoder, TextLayer, cls
from albef.model.verbs import Encoding, VisionLanguageModel
from albef.model_config import ModelConfig

USUAL_REGIONS = 36  # of an image: a constant of LXMERT's files, and the mean of UNITER's


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

    def at(
        self,
        tokens: Float[Tensor, "pairs places width"],
        mask: Bool[Tensor, "pairs places"],
        positions: Int[Tensor, " read"],
    ) -> Float[Tensor, "read width"]:
        """The last states at `positions` (flat indices into pairs × places). The last layer computes no others."""
        packing = Packing.of(mask)
        *before, last = (layer for layer in self.layers if isinstance(layer, TextLayer))
        states = packing.pack(tokens)
        for layer in before:
            states = kept_or_computed_again(layer, self.checkpointing, states, packing)
        return kept_or_computed_again(
            last.at, self.checkpointing, states, packing, packing.rows_of(positions)
        )


class RegionModel(VisionLanguageModel):
    """What models that see regions share. Nothing of matching can be done before text and regions meet."""

    text_encoder: TextEncoder
    mlm_head: MLMHead | None

    def __init__(self, config: ModelConfig, heads: tuple[str, ...]) -> None:
        super().__init__()
        self.config, self.heads = config, heads

    def sample_visual(self, images: int, generator: torch.Generator) -> Regions:
        """Random regions, as many as most detectors find."""
        features = torch.randn(images, USUAL_REGIONS, self.config.region_width, generator=generator)
        corners = torch.rand(images, USUAL_REGIONS, 2, 2, generator=generator).sort(2).values
        mask = torch.ones(images, USUAL_REGIONS, dtype=torch.bool)
        return Regions(features, corners.flatten(2), mask)

    def encode_text(self, ids: Int[Tensor, "batch length"], mask: Bool[Tensor, "batch length"]) -> Encoding:
        """Embedded texts, after the layers that texts have for themselves."""
        return without_feature(self.text_encoder(ids, mask), mask)

    def begin_match(
        self, text_tokens: Float[Tensor, "texts length width"], text_mask: Bool[Tensor, "texts length"]
    ) -> Float[Tensor, "texts length width"]:
        """The texts as they are."""
        return text_tokens

    def finish_match(
        self,
        begun: Float[Tensor, "texts length width"],
        text_mask: Bool[Tensor, "texts length"],
        memory: Any,
        image_index: Int[Tensor, " texts"] | None = None,
    ) -> Float[Tensor, "texts 2"]:
        """The same logits as `match`."""
        return self.match(begun, text_mask, memory, image_index)

    def predict_words(self, states: Float[Tensor, "masked width"]) -> Float[Tensor, "masked vocabulary"]:
        """MLM logits of states that `masked_states` gave."""
        assert self.mlm_head is not None
        return self.mlm_head(states, self.text_encoder.words.weight)

    def resized(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights as they are: regions have boxes, and no part depends on the size of images."""
        return dict(state)


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


def placed(positions: Int[Tensor, " read"], length: int, first: int, places: int) -> Int[Tensor, " read"]:
    """Flat indices into rows × length, as indices into rows × places, in which these rows begin at place `first`."""
    return positions // length * places + first + positions % length


def joined(
    text: Float[Tensor, "pairs length width"],
    text_mask: Bool[Tensor, "pairs length"],
    regions: RegionMemory,
) -> tuple[Float[Tensor, "pairs places width"], Bool[Tensor, "pairs places"]]:
    """Text and regions side by side, and which of the places are real. A memory of one image serves all texts."""
    shape = (len(text), -1, -1)
    tokens = torch.cat([text, regions.tokens.expand(shape)], 1)
    return tokens, torch.cat([text_mask, regions.mask.expand(shape[:2])], 1)
