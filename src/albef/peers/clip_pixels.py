"""Images to CLIP's input: the centre of the image, in its own proportions (the published transform)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from albef.data.transforms import channels_first, normalised

# How many times longer than wide an image may be. The ends of longer ones are cut off first: they are not seen
# anyway, and resizing a strip of 1 × 100,000 pixels would fill the memory.
LONGEST = 50


def clip_transform(
    image: Image.Image, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """The centre square of the image as float32 [3, S, S], S = `image_size`, normalised.

    The shorter side is resized to S by Pillow's antialiased bicubic filter, then the centre is cut out. What is not
    RGB is converted last, as published: colours of a palette are then not mixed, and alpha weighs the colours. Give
    an RGB image to have it the usual way round.
    """
    short = min(image.size)
    if max(image.size) > LONGEST * short:
        image = centre(image, tuple(min(side, LONGEST * short) for side in image.size))
    sides = [int(image_size * side / short) for side in image.size]
    image = image.resize(sides, Image.Resampling.BICUBIC)
    seen = np.asarray(centre(image, (image_size, image_size)).convert("RGB"))
    return normalised(torch.from_numpy(channels_first(seen)), mean, std).numpy()


def centre(image: Image.Image, size: tuple[int, ...]) -> Image.Image:
    """The centre of the image, width × height = `size`. Half pixels are rounded to even, as published."""
    left, top = (round((side - kept) / 2) for side, kept in zip(image.size, size, strict=True))
    return image.crop((left, top, left + size[0], top + size[1]))
