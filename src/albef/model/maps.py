"""Which patches of a picture a word relies on: Grad-CAM of image–text matching (paper §6.5)."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from albef.config import UserError
from albef.data.records import Box
from albef.model.albef import ALBEF, unit
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
    """A map per token of pair p (picture p, text p), float32 [pairs, length, grid, grid], nowhere negative.

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
    grid = model.config.grid
    patches: np.ndarray = maps[..., -(grid**2) :].float().cpu().numpy()  # without [CLS], where fusion sees it
    return patches.reshape(*patches.shape[:2], grid, grid)


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
    block: int | None = None,
) -> np.ndarray:
    """A map of what the image encoder's [CLS] looks at for each text, float32 [pairs, grid, grid], nowhere negative.

    Mean over heads of A · max(∂S/∂A, 0), where A is the [CLS] row of the attention of image block `block` (default: the
    last but one, which pointed best on pictograms) and S the similarity of picture and text divided by the temperature.
    """
    if block is None:
        block = max(model.config.image_depth - 2, 0)
    with torch.no_grad():
        text = model.encode_text(ids, mask).feature
    with torch.enable_grad():
        # The attention carries a gradient even where the model's own weights are frozen.
        tokens, attention = model.image_encoder.watched(pixels.clone().requires_grad_(), block)
        feature = unit(model.image_projection(cls(tokens)))
        score = (feature * text).sum() / model.temperature.detach()
        (gradient,) = torch.autograd.grad(score.sum(), attention)
    seen = (attention.detach() * gradient.clamp(min=0))[:, :, 0, 1:].mean(1)
    patches: np.ndarray = seen.float().cpu().numpy()
    return patches.reshape(-1, model.config.grid, model.config.grid)


def enlarged(map_: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map resized bicubically to (width, height), float32 [height, width], as published."""
    return cv2.resize(map_.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)


def box_of_map(map_: np.ndarray, share: float = 0.5) -> Box:
    """The box around the connected part that holds the map's highest value and is above `share` of it."""
    top, left = np.unravel_index(int(map_.argmax()), map_.shape)
    high = (map_ >= share * map_[top, left]).astype(np.uint8)
    _, parts, boxes, _ = cv2.connectedComponentsWithStats(high, connectivity=4)
    x, y, width, height, _ = boxes[parts[top, left]].tolist()
    return float(x), float(y), float(width), float(height)
