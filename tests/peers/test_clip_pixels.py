"""CLIP's transform of images."""

import numpy as np
import pytest
from PIL import Image

from albef.peers.clip_pixels import clip_transform

AS_THEY_ARE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)


def test_the_centre_is_kept_in_its_proportions() -> None:
    stripes = np.zeros((10, 30, 3), np.uint8)
    stripes[:, 10:20] = 255
    for pixels in (stripes, stripes.transpose(1, 0, 2)):
        assert (clip_transform(Image.fromarray(pixels), 10, *AS_THEY_ARE) == 1).all()


def test_palettes_are_converted_last() -> None:
    image = Image.fromarray(np.tile(np.array([0, 1], np.uint8), (8, 4)))
    image.putpalette([255, 0, 0, 0, 0, 255])
    found = clip_transform(image, 5, *AS_THEY_ARE)
    assert set(np.unique(found)) == {0.0, 1.0}
    mixed = clip_transform(image.convert("RGB"), 5, *AS_THEY_ARE)
    assert len(np.unique(mixed)) > 2


@pytest.mark.parametrize("size", [(1, 200_000), (200_000, 1)])
def test_a_long_strip_takes_no_memory(size: tuple[int, int]) -> None:
    """Resized whole it would have 10 gigapixels."""
    found = clip_transform(Image.new("RGB", size, "white"), 224, *AS_THEY_ARE)
    assert found.shape == (3, 224, 224)
    assert found.min() == pytest.approx(1)
