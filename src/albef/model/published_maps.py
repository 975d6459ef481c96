"""The published maps: Grad-CAM of one layer (paper §6.5), for parity and for RefCOCO+'s protocol.

Everything else uses the maps of `maps`: they point at the thing that a phrase names more often, and far more often
for a single word.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from albef.config import UserError
from albef.model.albef import ALBEF
from albef.model.maps import on_patches
from albef.model.text_encoder import cls
from albef.model.verbs import unit


def layer_of(depth: int, layer: int | None) -> int:
    """The number of a fusion layer. The default is the published one of six, or the one at the same relative depth.

    Raises `UserError` if there is no such layer.
    """
    if layer is None:
        return (depth - 1) // 2
    if not 0 <= layer < depth:
        raise UserError(f"There is no fusion layer {layer}. Choose one from 0 to {depth - 1}.")
    return layer


def word_maps(
    model: ALBEF,
    pixels: Float[Tensor, "pairs 3 height width"],
    ids: Int[Tensor, "pairs length"],
    mask: Bool[Tensor, "pairs length"],
    layer: int | None = None,
) -> np.ndarray:
    """A map for each token of pair p (image p, text p), float32 [pairs, length, grid, grid], values ≥ 0.

    Mean over heads of A · max(∂S/∂A, 0). A is the cross-attention of fusion layer `layer` (see `layer_of`), S the
    matching logit. Padding gets zeros. ITM reads only [CLS] from the last layer, so there only its map is not zero.
    """
    layer = layer_of(model.config.fusion_depth, layer)
    with torch.no_grad():
        tokens = model.encode_text(ids, mask).tokens
        memory = model.image_memory(model.encode_image(pixels))
    with torch.enable_grad():
        # The attention needs a gradient even if the model's weights are frozen.
        fused = model.fuse(tokens.requires_grad_(), mask, memory, keep_attention=True)
        assert model.itm_head is not None
        score = model.itm_head(fused.tokens[:, 0])[:, 1].sum()
        attention = fused.attention[layer]
        (gradient,) = torch.autograd.grad(score, attention)
    maps = (attention.detach() * gradient.clamp(min=0)).mean(1) * mask[..., None]
    places = model.places
    # Without [CLS], if fusion sees it.
    return on_patches(maps[..., -places.rows * places.columns :], places)


def pair_maps(
    model: ALBEF,
    pixels: Float[Tensor, "pairs 3 height width"],
    ids: Int[Tensor, "pairs length"],
    mask: Bool[Tensor, "pairs length"],
    layer: int | None = None,
) -> np.ndarray:
    """A map for each whole text, float32 [pairs, grid, grid]: the mean of `word_maps` over its tokens with [CLS].

    The published mean is over the padded length, which only changes the scale of a pair's map.
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
    """A map of what the image encoder's [CLS] attends to for each text, float32 [pairs, grid, grid], values ≥ 0.

    Mean over heads of A · max(∂S/∂A, 0). A is the [CLS] row of the attention in image block `block`, S the similarity
    of image and text divided by the temperature.
    """
    with torch.no_grad():
        text = model.encode_text(ids, mask).feature
    with torch.enable_grad():
        tokens, rows = model.image_encoder.watched(pixels.clone().requires_grad_())
        feature = unit(model.image_projection(cls(tokens)))
        score = (feature * text).sum() / model.temperature.detach()
        (gradient,) = torch.autograd.grad(score.sum(), rows[block])
    seen = (rows[block].detach() * gradient.clamp(min=0))[:, :, 0, 1:].mean(1)
    return on_patches(seen, model.places)
