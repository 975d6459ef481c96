"""The published maps: Grad-CAM of one layer (paper §6.5), kept for parity and for RefCOCO+'s protocol.

`maps` has those that are shown: they lie more often on what a phrase means, and far more often on what a word means.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from albef.config import UserError
from albef.model.albef import ALBEF, unit
from albef.model.maps import on_patches
from albef.model.text_encoder import cls


def layer_of(depth: int, layer: int | None) -> int:
    """The number of a fusion layer; by default the published one of six, or the one in the same place of another depth.

    Raises `UserError` for a layer that there isn't.
    """
    if layer is None:
        return (depth - 1) // 2
    if not 0 <= layer < depth:
        raise UserError(f"There is no fusion layer {layer}: choose one of 0 to {depth - 1}.")
    return layer


def word_maps(
    model: ALBEF,
    pixels: Float[Tensor, "pairs 3 height width"],
    ids: Int[Tensor, "pairs length"],
    mask: Bool[Tensor, "pairs length"],
    layer: int | None = None,
) -> np.ndarray:
    """A map per token of pair p (image p, text p), float32 [pairs, length, grid, grid], nowhere negative.

    Mean over heads of A · max(∂S/∂A, 0), where A is the cross-attention of fusion layer `layer` (see `layer_of`) and S
    the matching logit. Padding gets zeros. In the last layer matching reads [CLS] alone, so there only its map is not
    zero.
    """
    layer = layer_of(model.config.fusion_depth, layer)
    with torch.no_grad():
        tokens = model.encode_text(ids, mask).tokens
        memory = model.image_memory(model.encode_image(pixels))
    with torch.enable_grad():
        # The attention carries a gradient even where the model's own weights are frozen.
        fused = model.fuse(tokens.requires_grad_(), mask, memory, keep_attention=True)
        assert model.itm_head is not None
        score = model.itm_head(fused.tokens[:, 0])[:, 1].sum()
        attention = fused.attention[layer]
        (gradient,) = torch.autograd.grad(score, attention)
    maps = (attention.detach() * gradient.clamp(min=0)).mean(1) * mask[..., None]
    return on_patches(
        maps[..., -(model.config.grid**2) :], model.config.grid
    )  # without [CLS], where fusion sees it


def pair_maps(
    model: ALBEF,
    pixels: Float[Tensor, "pairs 3 height width"],
    ids: Int[Tensor, "pairs length"],
    mask: Bool[Tensor, "pairs length"],
    layer: int | None = None,
) -> np.ndarray:
    """A map of each whole text, float32 [pairs, grid, grid]: the mean of `word_maps` over its tokens, [CLS] too.

    The published mean is over the padded length, which changes nothing but the scale of a pair's map.
    """
    lengths = mask.sum(1).cpu().numpy()[:, None, None]
    maps: np.ndarray = word_maps(model, pixels, ids, mask, layer).sum(1) / lengths
    return maps


def contrast_maps(
    model: ALBEF,
    pixels: Float[Tensor, "pairs 3 height width"],
    ids: Int[Tensor, "pairs length"],
    mask: Bool[Tensor, "pairs length"],
    block: int,
) -> np.ndarray:
    """A map of what the image encoder's [CLS] looks at for each text, float32 [pairs, grid, grid], nowhere negative.

    Mean over heads of A · max(∂S/∂A, 0), where A is the [CLS] row of the attention of image block `block` and S the
    similarity of image and text divided by the temperature.
    """
    with torch.no_grad():
        text = model.encode_text(ids, mask).feature
    with torch.enable_grad():
        tokens, rows = model.image_encoder.watched(pixels.clone().requires_grad_())
        feature = unit(model.image_projection(cls(tokens)))
        score = (feature * text).sum() / model.temperature.detach()
        (gradient,) = torch.autograd.grad(score.sum(), rows[block])
    seen = (rows[block].detach() * gradient.clamp(min=0))[:, :, 0, 1:].mean(1)
    return on_patches(seen, model.config.grid)
