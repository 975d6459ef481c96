"""CLIP: an image encoder and a text encoder whose features are compared (Radford et al., ICML 2021)."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from albef.model.kernels import Linear
from albef.model.layers import Packing, SelfAttention, kept_or_computed_again
from albef.model.text_encoder import cls
from albef.model.verbs import Encoding, VisionLanguageModel, unit
from albef.model_config import Activation, ModelConfig

LARGEST_SCALE = 100.0  # that training lets similarities be multiplied by, as published


class CLIP(VisionLanguageModel):
    """Two encoders, a projection of each, and the scale of their similarities. It has no fusion encoder."""

    def __init__(self, config: ModelConfig, heads: tuple[str, ...] = ("contrast",)) -> None:
        super().__init__()
        self.config, self.heads = config, heads
        self.image_encoder = ImageEncoder(config)
        self.text_encoder = TextEncoder(config)
        self.image_norm = nn.LayerNorm(config.image_width)
        self.image_projection = nn.Linear(config.image_width, config.feature_width, bias=False)
        self.text_projection = nn.Linear(config.text_width, config.feature_width, bias=False)
        # Shape [1], not []: FSDP2 cannot shard a parameter without dimensions.
        self.logit_scale = nn.Parameter(torch.full((1,), -math.log(config.initial_temperature)))
        nn.init.normal_(self.image_projection.weight, std=config.image_width**-0.5)
        nn.init.normal_(self.text_projection.weight, std=config.text_width**-0.5)

    def encode_image(self, pixels: Float[Tensor, "batch 3 height width"]) -> Encoding:
        """Tokens (class token, patches row by row) and features of normalised images."""
        tokens = self.image_encoder(pixels)
        return Encoding(tokens, None, unit(self.image_features(tokens)))

    def encode_text(
        self, ids: Int[Tensor, "batch length"], mask: Bool[Tensor, "batch length"] | None = None
    ) -> Encoding:
        """Tokens and features of texts.

        A text ends at its first end token, which has the highest id of the vocabulary. The model finds it in the
        ids, so it does not need the `mask` that other systems need. The encoding's own mask ends there too.
        """
        end = ids.argmax(1, keepdim=True)  # of equal ids the first
        real = torch.arange(ids.shape[1], device=ids.device) <= end
        tokens = self.text_encoder(ids, real)
        return Encoding(tokens, real, unit(self.text_features(tokens, real)))

    def image_features(
        self, tokens: Float[Tensor, "batch tokens width"]
    ) -> Float[Tensor, "batch feature_width"]:
        """Image features before they get unit length: what the published `encode_image` returns."""
        return self.image_projection(self.image_norm(cls(tokens)))

    def text_features(
        self, tokens: Float[Tensor, "batch length width"], mask: Bool[Tensor, "batch length"]
    ) -> Float[Tensor, "batch feature_width"]:
        """Text features before they get unit length: what the published `encode_text` returns."""
        row = torch.arange(len(tokens), device=tokens.device)
        return self.text_projection(tokens[row, mask.sum(1) - 1])

    @property
    def temperature(self) -> Float[Tensor, "1"]:  # type: ignore[override]
        """What similarities are divided by, exp(−logit_scale)."""
        return torch.exp(-self.logit_scale)

    def resized(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a model for images of another size, with positions interpolated as open_clip does."""
        name = "image_encoder.positions"
        return {
            n: resize_positions(t.float(), self.config.grid) if n == name else t for n, t in state.items()
        }

    def checkpoint(self, encoders: Collection[str]) -> None:
        """Turns on activation checkpointing in these encoders ("image", "text")."""
        self.image_encoder.checkpointing = "image" in encoders
        self.text_encoder.checkpointing = "text" in encoders

    @torch.no_grad()
    def clamp_temperature(self) -> None:
        """Keeps the scale of similarities, exp(logit_scale), between 1 and 100, as open_clip does after each step."""
        self.logit_scale.clamp_(0.0, math.log(LARGEST_SCALE))


class ImageEncoder(nn.Module):
    """A ViT with a class token, learned positions, and a norm before its first block."""

    checkpointing = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.image_width
        self.patches = nn.Conv2d(3, width, config.patch_size, config.patch_size, bias=False)
        self.class_token = nn.Parameter(torch.empty(width))
        self.positions = nn.Parameter(torch.empty(1 + config.grid**2, width))
        self.input_norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            Block(width, config.image_heads, config.image_mlp_width, config.activation)
            for _ in range(config.image_depth)
        )
        nn.init.normal_(self.class_token, std=width**-0.5)
        nn.init.normal_(self.positions, std=width**-0.5)

    def forward(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch tokens channels"]:
        """The last block's tokens [class, patches row by row], without a final norm."""
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(pixels), 1, -1), patches], 1) + self.positions
        tokens = self.input_norm(tokens)
        for block in self.blocks:
            tokens = kept_or_computed_again(block, self.checkpointing, tokens)
        return tokens


class TextEncoder(nn.Module):
    """A causal transformer: a token sees what stands before it. The end token has seen the whole text."""

    checkpointing = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, depth = config.text_width, config.text_depth
        self.words = nn.Embedding(config.vocab_size, width)
        self.positions = nn.Parameter(torch.empty(config.max_positions, width))
        self.blocks = nn.ModuleList(
            Block(width, config.text_heads, config.text_mlp_width, config.activation) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.words.weight, std=0.02)
        nn.init.normal_(self.positions, std=0.01)
        for block in self.blocks:
            assert isinstance(block, Block)
            nn.init.normal_(block.attention.qkv.weight, std=width**-0.5)
            nn.init.normal_(block.attention.out.weight, std=(2 * depth * width) ** -0.5)
            nn.init.normal_(block.mlp.up.weight, std=(2 * width) ** -0.5)
            nn.init.normal_(block.mlp.down.weight, std=(2 * depth * width) ** -0.5)

    def forward(
        self, ids: Int[Tensor, "batch length"], mask: Bool[Tensor, "batch length"]
    ) -> Float[Tensor, "batch length width"]:
        """The tokens where `mask` is true, after the final norm. Elsewhere nothing is to be read."""
        packing = Packing.causal(mask)
        tokens = self.words(packing.pack(ids)) + packing.at_positions(self.positions)
        for block in self.blocks:
            tokens = kept_or_computed_again(block, self.checkpointing, tokens, packing)
        return packing.pad(self.norm(tokens))


class Block(nn.Module):
    """A pre-norm transformer block. Its attention starts as PyTorch's `MultiheadAttention` does."""

    def __init__(self, width: int, heads: int, mlp_width: int, activation: Activation) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads, dropout=0.0)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = FeedForward(width, mlp_width, activation)
        nn.init.xavier_uniform_(self.attention.qkv.weight)
        nn.init.zeros_(self.attention.qkv.bias)
        nn.init.zeros_(self.attention.out.bias)

    def forward(
        self, tokens: Float[Tensor, "*shape width"], packing: Packing | None = None
    ) -> Float[Tensor, "*shape width"]:
        """Image tokens, or the packed tokens of texts, after attention and feed-forward with residual connections."""
        states = self.attention_norm(tokens)
        seen = self.attention(states) if packing is None else self.attention.packed(states, packing)
        tokens = tokens + seen
        return tokens + self.mlp(self.mlp_norm(tokens))


class FeedForward(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, width: int, inner_width: int, activation: Activation) -> None:
        super().__init__()
        self.up = Linear(width, inner_width)
        self.down = Linear(inner_width, width)
        self.activation = ACTIVATIONS[activation]

    def forward(self, states: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape width"]:
        """The transformed states."""
        return self.down(self.activation(self.up(states)))


def quick_gelu(states: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """The approximation x·σ(1.702 x) of GELU, with which OpenAI's models were trained."""
    return states * torch.sigmoid(1.702 * states)


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {"quick_gelu": quick_gelu, "gelu": F.gelu}


def resize_positions(
    positions: Float[Tensor, "tokens width"], grid: int
) -> Float[Tensor, "resized_tokens width"]:
    """Position embeddings for `grid` × `grid` patches, as open_clip resizes them: bicubic with antialiasing.

    The class token's is kept. The numbers differ from those of `albef.model.image_encoder.resize_positions`, which
    does not antialias, also where the grid grows: PyTorch then uses another bicubic kernel.
    """
    old = math.isqrt(len(positions) - 1)
    if old == grid:
        return positions
    table = positions[1:].unflatten(0, (old, old)).permute(2, 0, 1)[None]
    table = F.interpolate(table, (grid, grid), mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([positions[:1], table[0].flatten(1).T])
