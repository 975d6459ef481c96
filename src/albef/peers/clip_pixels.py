"""Images to CLIP's input: the centre of the image, in its own proportions (the published transform)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from albef.data.transforms import centre_square, channels_first, normalised


def clip_transform(
    image: Image.Image, image_size: int, mean: Sequence[float], std: Sequence[float]
) -> np.ndarray:
    """The centre square of the image as float32 [3, S, S], S = `image_size`, normalised.

    What is not RGB is converted last, as published: colours of a palette are then not mixed, and alpha weighs the
    colours. The engine converts first; give an RGB image to have the same.
    """
    seen = np.asarray(centre_square(image, image_size).convert("RGB"))
    return normalised(torch.from_numpy(channels_first(seen)), mean, std).numpy()
