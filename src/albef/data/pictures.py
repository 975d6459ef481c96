"""Picture files to RGB arrays, safely: the size is bounded by the header before anything is decoded."""

from __future__ import annotations

import io
import os
import struct
import warnings
from collections.abc import Callable
from typing import BinaryIO

import cv2
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from albef.config import UserError

FORMATS = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 100_000_000

# What OpenCV decodes as Pillow does, in less time. It treats palettes, alpha and CMYK its own way, so those
# go to Pillow; sixteen-bit grey goes to OpenCV, because Pillow clips it instead of scaling it.
_OPENCV_FORMATS = frozenset({"JPEG", "MPO", "PNG", "WEBP"})
_OPENCV_MODES = frozenset({"RGB", "L", "I;16"})

# The EXIF orientation says how the stored picture lies; these bring it upright.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}


class BadPicture(UserError):
    """A file that cannot be used as a picture; the message names the file and the reason."""


def open_picture(picture: str | os.PathLike[str] | bytes, *, obey_exif: bool) -> np.ndarray:
    """The picture as contiguous uint8 [H, W, 3], RGB, without alpha; of an animation the first frame.

    `picture` is a file's path or its content. With `obey_exif` it is turned upright as its EXIF data say;
    published data sets were read without. Raises `BadPicture` when it is missing, unreadable, truncated or
    empty, and when its header announces more than 100 megapixels, which is found out before decoding.
    """
    name = "the picture" if isinstance(picture, bytes) else str(picture)
    try:
        with io.BytesIO(picture) if isinstance(picture, bytes) else open(picture, "rb") as file:
            header = _header(file, name)
            file.seek(0)
            data = file.read()
            pixels = _decode(header, data)
            upright = _UPRIGHT.get(_orientation(header, data)) if obey_exif else None
    except BadPicture:
        raise
    except FileNotFoundError:
        raise BadPicture(
            f"{name}: no such file; paths in an annotation file begin at data.image_root (--image-root), others at "
            f"the current folder."
        ) from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:  # what broken content raises
        raise BadPicture(f"{name}: cannot be read as a picture ({str(error).rstrip('.')}).") from None
    return np.ascontiguousarray(upright(pixels) if upright else pixels)


def _header(file: BinaryIO, name: str) -> Image.Image:
    """The picture with only its header read; raises `BadPicture` for other files and for huge pictures."""
    start = file.read(64).lstrip()
    file.seek(0)
    try:
        with warnings.catch_warnings():  # Pillow warns of sizes that are decided on below
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            header = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        if not start:
            raise BadPicture(f"{name}: is empty.") from None
        if start.startswith(b"<"):
            raise BadPicture(f"{name}: holds HTML or XML, not a picture; download it again.") from None
        raise BadPicture(f"{name}: is not a picture of a known format ({', '.join(FORMATS)}).") from None
    except Image.DecompressionBombError:
        raise BadPicture(f"{name}: has more than {MAX_PIXELS // 1_000_000} megapixels; shrink it.") from None
    if header.width * header.height > MAX_PIXELS:
        raise BadPicture(f"{name}: has more than {MAX_PIXELS // 1_000_000} megapixels; shrink it.")
    return header


def _decode(header: Image.Image, data: bytes) -> np.ndarray:
    """The stored pixels as uint8 [H, W, 3], not yet upright."""
    if (
        header.format in _OPENCV_FORMATS
        and header.mode in _OPENCV_MODES
        and not getattr(header, "is_animated", False)
    ):
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if pixels is not None:
            return pixels
    image: Image.Image = Image.open(
        io.BytesIO(data), formats=FORMATS
    )  # also names the reason when OpenCV gave up
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB"))


def _orientation(header: Image.Image, data: bytes) -> int:
    """The EXIF orientation, 1 to 8; 1 = as stored."""
    if header.format == "TIFF":  # Pillow has turned it while decoding
        return 1
    if header.format == "PNG" and b"eXIf" not in data:  # Pillow would decode the picture to be sure of it
        return 1
    try:
        orientation: int = header.getexif().get(ExifTags.Base.Orientation, 1)
    except (struct.error, SyntaxError, ValueError):  # broken EXIF data say nothing of the picture
        return 1
    return orientation
