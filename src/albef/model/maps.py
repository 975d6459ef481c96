"""Maps of the patches that a score comes from: for a whole text, and for each of its words.

A map is A · max(∂S/∂A, 0), mean over heads, summed over all blocks of the image encoder. A is the [CLS] row of a
block's attention (Chefer et al., 2021, without their product over layers). S is the score of the text. For a word, S is
what the word adds: the text's score minus its score with the word's tokens masked from attention. A word's own row of
cross-attention says little, since self-attention has already mixed the words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from albef.data.records import Box
from albef.model.albef import ALBEF
from albef.model.text_encoder import KeyValues, cls
from albef.model.verbs import Encoding, Grid, unit

Score = Literal["itm", "itc"]  # log-odds of matching; similarity / temperature
SCORES: tuple[Score, ...] = ("itm", "itc")


class Maps(NamedTuple):
    """Where in the image the scores of pairs come from. Values are ≥ 0, in units of the score."""

    whole: Float[np.ndarray, "pairs grid grid"]
    words: Float[np.ndarray, "pairs words grid grid"]


class Slopes(NamedTuple):
    """Tensors computed from image tokens, and the gradient of each text's score by them."""

    states: tuple[Tensor, ...]  # each [pairs, …]
    gradients: tuple[Tensor, ...]  # of each [pairs, texts, …]


def score_maps(
    model: ALBEF,
    pixels: Float[Tensor, "pairs 3 height width"],
    ids: Int[Tensor, "pairs length"],
    mask: Bool[Tensor, "pairs length"],
    words: Bool[Tensor, "pairs words length"],
    score: Score,
) -> Maps:
    """Maps of the score of pair p (image p, text p), and of what each word adds to it.

    `words` marks the tokens of each word. A word without tokens gets a map of zeros. The image is encoded once. Each
    word costs one more backward pass.
    """
    # Each text whole, then once without each word. Positions do not shift.
    texts = torch.cat([mask[:, None], mask[:, None] & ~words], 1)
    with torch.enable_grad():
        # The attention needs a gradient even if the model's weights are frozen.
        tokens, rows = model.image_encoder.watched(pixels.clone().requires_grad_())
        slopes = (matching_slopes if score == "itm" else contrast_slopes)(model, tokens, ids, texts)
        maps = [carried(slopes, number, rows) for number in range(texts.shape[1])]
    whole, *of_words = (on_patches(one, model.places) for one in maps)
    empty = np.zeros((len(whole), 0, *whole.shape[1:]), np.float32)
    return Maps(whole, np.stack(of_words, 1) if of_words else empty)


def contrast_slopes(
    model: ALBEF,
    tokens: Float[Tensor, "pairs places width"],
    ids: Int[Tensor, "pairs length"],
    texts: Bool[Tensor, "pairs texts length"],
) -> Slopes:
    """Slopes of similarity / temperature by the image's feature, in which it is linear."""
    count = texts.shape[1]
    with torch.no_grad():
        feature = model.encode_text(ids.repeat_interleave(count, 0), texts.flatten(0, 1)).feature
    states = unit(model.image_projection(cls(tokens)))
    return Slopes((states,), (feature.unflatten(0, (-1, count)) / model.temperature.detach(),))


def matching_slopes(
    model: ALBEF,
    tokens: Float[Tensor, "pairs places width"],
    ids: Int[Tensor, "pairs length"],
    texts: Bool[Tensor, "pairs texts length"],
) -> Slopes:
    """Slopes of the matching log-odds ("match" minus "no match") by the image's keys and values for fusion."""
    count = texts.shape[1]
    memory = model.image_memory(Encoding(tokens, None, cls(tokens)))
    with torch.no_grad():
        text = model.encode_text(ids.repeat_interleave(count, 0), texts.flatten(0, 1))
        seen = [layer.repeat_interleave(count, 0).requires_grad_() for layer in memory.layers]
    no, yes = model.match(text.tokens, texts.flatten(0, 1), KeyValues(tuple(seen), None)).unbind(1)
    gradients = torch.autograd.grad((yes - no).sum(), seen)
    return Slopes(memory.layers, tuple(one.unflatten(0, (-1, count)) for one in gradients))


def carried(
    slopes: Slopes, number: int, rows: Sequence[Float[Tensor, "pairs heads 1 places"]]
) -> Float[Tensor, "pairs patches"]:
    """The map of text 0, or of text 0 minus text `number`, by backpropagation into the image encoder's attention."""
    pulls = [one[:, 0] - one[:, number] if number else one[:, 0] for one in slopes.gradients]
    gradients = torch.autograd.grad(slopes.states, rows, pulls, retain_graph=True)
    parts = [row.detach() * gradient.clamp(min=0) for row, gradient in zip(rows, gradients, strict=True)]
    return torch.stack([part[:, :, 0, 1:].mean(1) for part in parts]).sum(0)


def on_patches(
    values: Float[Tensor, "*shape patches"], places: Grid
) -> Float[np.ndarray, "*shape rows columns"]:
    """Values of patches (row by row) as a grid, float32."""
    patches: np.ndarray = values.detach().float().cpu().numpy()
    return patches.reshape(*patches.shape[:-1], *places)


def scaled(maps: np.ndarray, peak: float) -> np.ndarray:
    """The maps on one common scale, whose highest value is `peak`. Zeros stay zeros."""
    return maps * (peak / (maps.max(initial=0.0) or 1.0))


def enlarged(map_: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map resized bicubically to (width, height), float32 [height, width], as published."""
    return cv2.resize(map_.astype(np.float32), size, interpolation=cv2.INTER_CUBIC)


def box_of_map(map_: np.ndarray, share: float = 0.5) -> Box:
    """The box around the connected region above `share` of the map's maximum that holds this maximum."""
    top, left = np.unravel_index(int(map_.argmax()), map_.shape)
    high = (map_ >= share * map_[top, left]).astype(np.uint8)
    _, parts, boxes, _ = cv2.connectedComponentsWithStats(high, connectivity=4)
    x, y, width, height, _ = boxes[parts[top, left]].tolist()
    return float(x), float(y), float(width), float(height)
