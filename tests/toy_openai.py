"""A toy model built as OpenAI's are, out of PyTorch's own layers, and TorchScript archives of it."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

import toy_clip

C = toy_clip.CONFIG


class QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class MLP(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.c_fc, self.gelu, self.c_proj = nn.Linear(width, inner), QuickGELU(), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(self.gelu(self.c_fc(x)))


class ResidualBlock(nn.Module):
    def __init__(self, width: int, heads: int, inner: int, mask: Tensor | None) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mlp = MLP(width, inner)
        self.attn_mask = mask  # an ordinary attribute

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False, attn_mask=self.attn_mask)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, depth: int, heads: int, inner: int, mask: Tensor | None = None) -> None:
        super().__init__()
        self.resblocks = nn.Sequential(*[ResidualBlock(width, heads, inner, mask) for _ in range(depth)])

    def forward(self, x: Tensor) -> Tensor:
        return self.resblocks(x.transpose(0, 1)).transpose(0, 1)


class Visual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, C.image_width, C.patch_size, C.patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.randn(C.image_width))
        self.positional_embedding = nn.Parameter(torch.randn(1 + C.grid**2, C.image_width))
        self.ln_pre, self.ln_post = nn.LayerNorm(C.image_width), nn.LayerNorm(C.image_width)
        self.transformer = Transformer(C.image_width, C.image_depth, C.image_heads, C.image_mlp_width)
        self.proj = nn.Parameter(torch.randn(C.image_width, C.feature_width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(x.shape[0], 1, -1), x], 1) + self.positional_embedding
        return self.ln_post(self.transformer(self.ln_pre(x))[:, 0]) @ self.proj


class Published(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = Visual()
        mask = torch.full((C.max_positions, C.max_positions), float("-inf")).triu(1)
        self.transformer = Transformer(C.text_width, C.text_depth, C.text_heads, C.text_mlp_width, mask)
        self.token_embedding = nn.Embedding(C.vocab_size, C.text_width)
        self.positional_embedding = nn.Parameter(torch.randn(C.max_positions, C.text_width))
        self.ln_final = nn.LayerNorm(C.text_width)
        self.text_projection = nn.Parameter(torch.randn(C.text_width, C.feature_width))
        self.logit_scale = nn.Parameter(torch.tensor(2.6))
        self.register_buffer("input_resolution", torch.tensor(C.image_size))
        self.register_buffer("context_length", torch.tensor(C.max_positions))
        self.register_buffer("vocab_size", torch.tensor(C.vocab_size))

    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        x = self.ln_final(self.transformer(self.token_embedding(text) + self.positional_embedding))
        end = text.argmax(dim=-1)
        return self.visual(image), x[torch.arange(x.shape[0]), end] @ self.text_projection


def published(seed: int = 0) -> Published:
    """The model, with random weights."""
    torch.manual_seed(seed)
    model = Published()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def halved(model: Published) -> Published:
    """With weights of linear layers, attention, convolution and projections in fp16, as they were released."""
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            module.half()
    for owner, name in ((model, "text_projection"), (model.visual, "proj")):
        setattr(owner, name, nn.Parameter(getattr(owner, name).detach().half()))
    return model


def save(model: nn.Module, file: Path, traced: bool = False) -> Path:
    """Writes the TorchScript archive of a model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if traced:
            ids = toy_clip.texts([1] * (C.max_positions - 2))
            script = torch.jit.trace(model, (toy_clip.pixels(1), ids))
        else:
            script = torch.jit.script(model)
        script.save(str(file))
    return file
