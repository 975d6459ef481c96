"""The ViT that turns an image into tokens (paper §3.1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from albef.config import ModelConfig
from albef.model.layers import FeedForward, SelfAttention, kept_or_computed_again


class ImageBlock(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, heads: int, mlp_width: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, eps=1e-6)
        self.attention = SelfAttention(width, heads, dropout=0.0)
        self.mlp_norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = FeedForward(width, mlp_width)

    def forward(self, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch tokens width"]:
        """The tokens after attention and feed-forward, each with a residual connection."""
        tokens = tokens + self.attention(self.attention_norm(tokens))
        return tokens + self.mlp(self.mlp_norm(tokens))

    def watched(
        self, tokens: Float[Tensor, "batch tokens width"]
    ) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "batch heads 1 tokens"]]:
        """The result of `forward`, and the attention probabilities of [CLS]."""
        gathered, attention = self.attention.watched(self.attention_norm(tokens))
        tokens = tokens + gathered
        return tokens + self.mlp(self.mlp_norm(tokens)), attention


class ImageEncoder(nn.Module):
    """A ViT with a class token, learned positions and a final norm on every token."""

    checkpointing = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.image_width
        self.patches = nn.Conv2d(3, width, config.patch_size, config.patch_size)
        self.class_token = nn.Parameter(torch.empty(1, 1, width))
        self.positions = nn.Parameter(torch.empty(1, 1 + config.grid**2, width))
        self.blocks = nn.ModuleList(
            ImageBlock(width, config.image_heads, config.image_mlp_width) for _ in range(config.image_depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        nn.init.trunc_normal_(self.class_token, std=0.02)
        nn.init.trunc_normal_(self.positions, std=0.02)
        if config.sine_positions:
            with torch.no_grad():
                self.positions[:, 1:] = sine_positions(config.grid, width)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=config.initial_std)
                nn.init.zeros_(module.bias)

    def forward(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch tokens channels"]:
        """Tokens [CLS, patches row by row] of normalised images."""
        tokens = self.embed(pixels)
        for block in self.blocks:
            tokens = kept_or_computed_again(block, self.checkpointing, tokens)
        return self.norm(tokens)

    def embed(self, pixels: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch tokens channels"]:
        """The input of the first block: class token and patches, with positions."""
        patches = self.patches(pixels).flatten(2).transpose(1, 2)
        return torch.cat([self.class_token.expand(len(pixels), -1, -1), patches], 1) + self.positions

    def watched(
        self, pixels: Float[Tensor, "batch 3 height width"]
    ) -> tuple[Float[Tensor, "batch tokens channels"], tuple[Float[Tensor, "batch heads 1 tokens"], ...]]:
        """The result of `forward`, and the attention probabilities of [CLS] in every block."""
        tokens, rows = self.embed(pixels), []
        for block in self.blocks:
            assert isinstance(block, ImageBlock)
            tokens, row = block.watched(tokens)
            rows.append(row)
        return self.norm(tokens), tuple(rows)


def sine_positions(grid: int, width: int) -> Float[Tensor, "1 patches width"]:
    """Fixed 2-D sines and cosines: half of the channels encode a patch's row, half its column."""
    place = torch.arange(grid, dtype=torch.float32)
    frequencies = 10.0 ** -torch.linspace(0, 1.5, width // 4)
    waves = torch.cat([(place[:, None] * frequencies).sin(), (place[:, None] * frequencies).cos()], 1)
    rows = waves[:, None].expand(-1, grid, -1)
    columns = waves[None].expand(grid, -1, -1)
    table = torch.cat([rows, columns], -1).reshape(1, grid * grid, -1)
    return F.pad(table, (0, width - table.shape[-1]))


def resize_positions(
    positions: Float[Tensor, "1 tokens width"], grid: int
) -> Float[Tensor, "1 resized_tokens width"]:
    """Position embeddings for `grid` × `grid` patches: [CLS] is kept, the others are resized bicubically."""
    old = round((positions.shape[1] - 1) ** 0.5)
    if old == grid:
        return positions
    table = positions[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)
    table = F.interpolate(table, size=(grid, grid), mode="bicubic", align_corners=False)
    return torch.cat([positions[:, :1], table.flatten(2).transpose(1, 2)], 1)
