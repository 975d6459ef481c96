"""RGB images to model input: augmented with OpenCV to train, resized with Pillow to evaluate, normalised last."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor

from albef.config import DataConfig
from albef.model_config import Fit

# RandAugment with 2 operations of magnitude 7 of 10, as published.
_NUM_OPERATIONS, _APPLY_PROBABILITY = 2, 0.5
_ENHANCE = 0.7 * 1.8 + 0.1  # brightness and sharpness: factor
_SHEAR = 0.7 * 0.3  # pixels per pixel
_SHIFT = 0.7 * 10  # pixels
_DEGREES = 0.7 * 30
_FILL = (128, 128, 128)
# How many times longer than wide an image may be where its centre is seen. The ends of longer ones are cut off first:
# they are not seen anyway, and resizing a strip of 1 × 100,000 pixels would fill the memory.
LONGEST = 50


def train_transform(
    image: UInt8[np.ndarray, "height width 3"],
    config: DataConfig,
    image_size: int,
    rng: np.random.Generator,
    fit: Fit = "stretch",
) -> UInt8[np.ndarray, "3 size size"]:
    """A random view of the image (RGB), a square of `image_size` pixels, not normalised.

    Random resized crop (`config.crop_scale`; with (1, 1) what `fit` says), mirror image in one of two cases if
    `config.flip`, RandAugment if `config.randaugment`.
    """
    if tuple(config.crop_scale) != (1, 1):
        top, left, height, width = _crop(image.shape[0], image.shape[1], config.crop_scale, rng)
        image = image[top : top + height, left : left + width]
    elif fit == "crop":
        side = min(image.shape[:2])
        top, left = ((length - side) // 2 for length in image.shape[:2])
        image = image[top : top + side, left : left + side]
    if image.shape[:2] != (image_size, image_size):
        image = _squeezed(image, image_size)
    if config.flip and rng.random() < 0.5:
        image = cv2.flip(image, 1)
    if config.randaugment:
        image = _randaugment(np.ascontiguousarray(image), rng)
    return channels_first(image)


def evaluation_transform(
    image: UInt8[np.ndarray, "height width 3"] | Image.Image, image_size: int, fit: Fit = "stretch"
) -> UInt8[np.ndarray, "3 size size"]:
    """The image as a square of `image_size` pixels (antialiased bicubic), RGB, not normalised.

    `fit` "stretch" squeezes the whole image into the square, "crop" takes its centre. A Pillow image is converted to RGB
    last: colours of a palette are then not mixed, and alpha weighs the colours.
    """
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    if fit == "crop":
        picture = centre_square(picture, image_size)
    elif picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return channels_first(np.asarray(picture if picture.mode == "RGB" else picture.convert("RGB")))


def centre_square(image: Image.Image, image_size: int) -> Image.Image:
    """The centre of an image, a square of `image_size` pixels, in the image's own mode.

    The shorter side is resized to this size by Pillow's antialiased bicubic filter, then the centre is cut out: the
    published transform of CLIP.
    """
    short = min(image.size)
    if max(image.size) > LONGEST * short:
        image = _centre(image, tuple(min(side, LONGEST * short) for side in image.size))
    sides = [int(image_size * side / short) for side in image.size]
    return _centre(image.resize(sides, Image.Resampling.BICUBIC), (image_size, image_size))


def _centre(image: Image.Image, size: tuple[int, ...]) -> Image.Image:
    """The centre of the image, width × height = `size`. Half pixels are rounded to even, as published."""
    left, top = (round((side - kept) / 2) for side, kept in zip(image.size, size, strict=True))
    return image.crop((left, top, left + size[0], top + size[1]))


def normalised(
    pixels: UInt8[Tensor, "*images 3 height width"] | Float[Tensor, "*images 3 height width"],
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[Tensor, "*images 3 height width"]:
    """(pixels / 255 − mean) / std in fp32, on the device of the pixels; floats are normalised already.

    Pixels travel as uint8, a quarter of the bytes, and become floats where they are used.
    """
    if pixels.is_floating_point():
        return pixels
    values: Float32[Tensor, "*images 3 height width"] = pixels.float()
    scales = 1 / (255 * np.asarray(std, dtype=np.float32))
    shifts = np.asarray(mean, dtype=np.float32) * 255 * scales
    # Numbers of the host go along with the kernel; a tensor of them would have to be copied to the device.
    for channel, scale, shift in zip(values.unbind(-3), scales.tolist(), shifts.tolist(), strict=True):
        channel.mul_(scale).sub_(shift)
    return values


def channels_first(image: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "3 height width"]:
    """The same image, one plane for each colour."""
    return np.ascontiguousarray(image.transpose(2, 0, 1))


def _squeezed(image: np.ndarray, size: int) -> np.ndarray:
    """The image as a square of `size` pixels."""
    if image.shape[0] * image.shape[1] <= size**2:
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC)
    # Only INTER_AREA averages over the pixels it drops.
    if max(image.shape[:2]) > 2 * size:
        return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    # With floats OpenCV computes the same means a third faster, but large images would take much memory.
    means = cv2.resize(image.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return cv2.convertScaleAbs(means)


def _crop(
    height: int, width: int, scale: tuple[float, float], rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height and width of a crop with a random share of the area and a ratio of 3:4 to 4:3."""
    for _ in range(10):
        area = height * width * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top, left = rng.integers(height - crop_height + 1), rng.integers(width - crop_width + 1)
            return int(top), int(left), crop_height, crop_width
    # A long, narrow image: the largest allowed crop in its middle.
    crop_width = min(width, max(round(height * 4 / 3), 1))
    crop_height = min(height, max(round(width * 4 / 3), 1))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def _randaugment(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for operation in rng.integers(len(_OPERATIONS), size=_NUM_OPERATIONS):
        apply, sign = rng.random() < _APPLY_PROBABILITY, 1 if rng.random() < 0.5 else -1
        if apply:
            image = _OPERATIONS[operation](image, sign)
    return image


def _autocontrast(image: np.ndarray, sign: int) -> np.ndarray:
    """Each channel stretched to 0–255."""
    channels = cv2.split(image)  # NumPy is much faster on separate channels than on interleaved ones
    low, high = (np.array([reduce(one) for one in channels], np.float64) for reduce in (np.min, np.max))
    scale = np.where(high > low, 255 / np.maximum(high - low, 1), 1.0)
    low = np.where(high > low, low, 0.0)
    return _look_up(image, (np.arange(256)[:, None] - low) * scale)


def _equalize(image: np.ndarray, sign: int) -> np.ndarray:
    """Each channel's histogram flattened, as Pillow's `ImageOps.equalize` does."""
    tables = np.empty((256, 3))
    for channel, values in enumerate(cv2.split(image)):
        counts = cv2.calcHist([values], [0], None, [256], [0, 256]).ravel().astype(np.int64)
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        below = np.concatenate([[0], counts[:-1].cumsum()])
        tables[:, channel] = (below + step // 2) // step if step else np.arange(256)
    return _look_up(image, tables)


def _brighten(image: np.ndarray, sign: int) -> np.ndarray:
    return _look_up(image, np.repeat(np.arange(256)[:, None] * _ENHANCE, 3, axis=1))


def _sharpen(image: np.ndarray, sign: int) -> np.ndarray:
    """The image moved away from its smoothed version. The outermost pixels stay."""
    smooth = cv2.filter2D(image, -1, np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13)
    sharp = image.copy()
    sharp[1:-1, 1:-1] = cv2.addWeighted(image, _ENHANCE, smooth, 1 - _ENHANCE, 0)[1:-1, 1:-1]
    return sharp


def _shear_x(image: np.ndarray, sign: int) -> np.ndarray:
    return _warp(image, np.array([[1, sign * _SHEAR, 0], [0, 1, 0]]))


def _shear_y(image: np.ndarray, sign: int) -> np.ndarray:
    return _warp(image, np.array([[1, 0, 0], [sign * _SHEAR, 1, 0]]))


def _translate_x(image: np.ndarray, sign: int) -> np.ndarray:
    return _warp(image, np.array([[1, 0, sign * _SHIFT], [0, 1, 0]]))


def _translate_y(image: np.ndarray, sign: int) -> np.ndarray:
    return _warp(image, np.array([[1, 0, 0], [0, 1, sign * _SHIFT]]))


def _rotate(image: np.ndarray, sign: int) -> np.ndarray:
    height, width = image.shape[:2]
    return _warp(image, cv2.getRotationMatrix2D((width / 2, height / 2), sign * _DEGREES, 1))


def _identity(image: np.ndarray, sign: int) -> np.ndarray:
    return image


def _look_up(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """The image with each value replaced by its channel's column of `table` [256, 3], cut to 0–255."""
    return cv2.LUT(image, table.clip(0, 255).astype(np.uint8)[None])


def _warp(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR, borderValue=_FILL)


_OPERATIONS: tuple[Callable[[np.ndarray, int], np.ndarray], ...] = (
    _identity,
    _autocontrast,
    _equalize,
    _brighten,
    _sharpen,
    _shear_x,
    _shear_y,
    _translate_x,
    _translate_y,
    _rotate,
)
