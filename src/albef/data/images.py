"""Images of any kind → RGB arrays, safely: the header's size is checked before anything is decoded."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import threading
import warnings
from collections.abc import Callable
from typing import BinaryIO, Literal

import cv2
import numpy as np
from PIL import ExifTags, Image, ImageOps, JpegImagePlugin, PngImagePlugin, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT

from albef.config import UserError
from albef.data.formats import FORMATS, START_BYTES, image_format, why_unread
from albef.errors import reading
from albef.manifest import plain

# A file, its content, a Pillow image, or an array: uint8 [H, W] grey, [H, W, 3] RGB or [H, W, 4] RGBA.
ImageInput = str | os.PathLike[str] | bytes | Image.Image | np.ndarray
Transparent = Literal["white", "dropped"]

MAX_PIXELS = 100_000_000  # of a decoded image
# A larger JPEG is decoded at 1/2, 1/4 or 1/8 of its sides, since phones take up to 200 megapixels.
MAX_JPEG_PIXELS = 1_000_000_000
MAX_PROGRESSIVE_PIXELS = 200_000_000  # decoded as a whole before it can be scaled
MAX_BYTES = 1_000_000_000  # of a file

# OpenCV decodes these as Pillow does, but faster. Palettes, alpha, CMYK, and 16-bit grey of other formats than PNG go to
# Pillow, since OpenCV treats them differently.
_OPENCV_FORMATS = frozenset({"JPEG", "MPO", "PNG", "WEBP"})
_OPENCV_MODES = frozenset({"RGB", "L", "I;16"})
_OWN_MODES = frozenset({"P", "PA", "LA", "RGBA"})  # whose conversion before resizing gives other pixels

# EXIF orientation → the operation that turns the stored image upright.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.transpose(1, 0, 2),
    6: lambda pixels: pixels.transpose(1, 0, 2)[:, ::-1],
    7: lambda pixels: pixels[::-1, ::-1].transpose(1, 0, 2),
    8: lambda pixels: pixels.transpose(1, 0, 2)[::-1],
}


class BadImage(UserError):
    """Something that cannot be used as an image. The message names the file and the reason."""


def open_image(
    image: ImageInput, *, obey_exif: bool, transparent: Transparent = "white", shrink: bool = True
) -> np.ndarray:
    """The image as uint8 [H, W, 3], RGB, without alpha. An animation gives its first frame.

    `image` is a file's path or its content, a Pillow image, or an array: uint8 [H, W] grey, [H, W, 3] RGB or
    [H, W, 4] RGBA. `obey_exif` turns it upright by its EXIF data (published data sets were read without).
    `transparent`: "white" puts it on white, "dropped" ignores alpha, as published, and so shows hidden colours.
    `shrink` decodes a JPEG of more than 100 megapixels at a smaller size. Without it such a file is refused, which
    matters where boxes are in pixels. Raises `BadImage` if the image is missing, unreadable, truncated or empty, if its
    white level is unknown, or if its header announces too many pixels, which is checked before decoding.
    """
    name = str(image) if isinstance(image, str | os.PathLike) else "the image"
    reading.set(name)
    try:
        if isinstance(image, np.ndarray):
            return _of_array(image, transparent)
        if not isinstance(image, str | os.PathLike | bytes | Image.Image):
            raise _Refused(
                f"is a {type(image).__name__}. Give a path, a file's content as bytes, a Pillow image or an array."
            )
        with _without_warnings:
            if isinstance(image, Image.Image):
                with _decoding_pillows:
                    pixels = _rgb(image, transparent)
                    orientation = _orientation(image) if obey_exif else 1
            else:
                with _content(image) as file:
                    header = _header(file, shrink)
                    file.seek(0)
                    data = file.read()
                    pixels = _decoded(header, data, transparent)
                    orientation = _orientation(header, data) if obey_exif else 1
        upright = _UPRIGHT.get(orientation)
        return np.ascontiguousarray(upright(pixels) if upright else pixels)
    except _Refused as error:
        raise BadImage(f"{name}: {error}") from None
    except Exception as error:  # on broken content decoders may raise anything
        raise BadImage(f"{name}: cannot be read as an image ({plain(error)}).") from None


def open_unconverted(image: ImageInput, *, obey_exif: bool) -> Image.Image:
    """The image in its own mode if that is a palette or has alpha, else in RGB, as `open_image` gives it.

    For transforms that convert to RGB last. Raises `BadImage` as `open_image` does.
    """
    whole = open_image(image, obey_exif=obey_exif, transparent="dropped")  # with all of its checks
    if isinstance(image, np.ndarray):
        return Image.fromarray(image if image.ndim == 3 else whole)
    with contextlib.ExitStack() as held:
        held.enter_context(_without_warnings)
        held.enter_context(_decoding_pillows)
        given = image
        if not isinstance(given, Image.Image):
            given = _header(held.enter_context(_content(given)), shrink=True)
        if given.mode not in _OWN_MODES:
            return Image.fromarray(whole)
        turned = ImageOps.exif_transpose(given) if obey_exif else None
        return turned or given.copy()


def _content(image: str | os.PathLike[str] | bytes) -> BinaryIO:
    return io.BytesIO(image) if isinstance(image, bytes) else _file(image)


class _Refused(Exception):
    """What is wrong with an image, as a sentence without the name."""


# A Pillow image is decoded when it is first looked at, and the same one may be given to several threads.
_decoding_pillows = threading.Lock()
_REFUSED_SIZE = "has more than {} megapixels; shrink it."
_NO_WHITE = "holds {}, and nothing says which of them is white; save it with 8 or 16 bits a channel."
_SIGNED = 2  # TIFF's word for numbers with a sign


def _file(path: str | os.PathLike[str]) -> BinaryIO:
    """An open file. Raises `_Refused` for anything else, such as a pipe, which could block forever."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        if os.path.islink(path):
            raise _Refused(f"is a link to {os.readlink(path)}, which does not exist.") from None
        raise _Refused("no such file.") from None
    if not stat.S_ISREG(found.st_mode):
        what = "folder" if stat.S_ISDIR(found.st_mode) else "pipe, socket or device"
        raise _Refused(f"cannot be read as an image (it is a {what}).")
    if found.st_size > MAX_BYTES:
        raise _Refused(f"has more than {MAX_BYTES // 1_000_000} megabytes; shrink it.")
    return open(path, "rb")


def _header(file: BinaryIO, shrink: bool) -> Image.Image:
    """The image with only its header read. Raises `_Refused` for other files and for huge images."""
    start = file.read(START_BYTES)
    file.seek(0)
    kind = image_format(start)
    if kind is None:
        raise _Refused(_why_none(start))
    if reason := why_unread(kind):
        raise _Refused(f"is an image {reason}.")
    try:
        if kind == "JPEG":  # Image.open refuses large ones by itself
            header: Image.Image = JpegImagePlugin.jpeg_factory(file)
        elif kind == "HEIF":
            header = _heif(file)
        else:
            header = Image.open(file, formats=[kind])
    except UnidentifiedImageError:
        raise _Refused(
            f"cannot be read as an image (it begins like {kind}, but the rest is damaged)."
        ) from None
    except Image.DecompressionBombError:
        raise _Refused(_REFUSED_SIZE.format(MAX_PIXELS // 1_000_000)) from None
    most = MAX_PIXELS
    if shrink and kind == "JPEG":
        most = MAX_PROGRESSIVE_PIXELS if "progressive" in header.info else MAX_JPEG_PIXELS
    if header.width * header.height > most:
        raise _Refused(_REFUSED_SIZE.format(most // 1_000_000))
    return header


def _why_none(start: bytes) -> str:
    if not start:
        return "is empty."
    if start.lstrip().startswith(b"<"):
        return "holds HTML or XML, not an image; download it again."
    return f"is not an image of a known format ({', '.join(FORMATS)})."


def _heif(file: BinaryIO) -> Image.Image:
    """A HEIC or HEIF image with only its header read."""
    from pi_heif import HeifImageFile  # needs an extra

    header: Image.Image = HeifImageFile(file)
    return header


def _decoded(header: Image.Image, data: bytes, transparent: Transparent) -> np.ndarray:
    """The stored pixels as uint8 [H, W, 3], not yet upright."""
    if (
        header.format in _OPENCV_FORMATS
        and header.mode in _OPENCV_MODES
        and header.width * header.height <= MAX_PIXELS
        and not getattr(header, "is_animated", False)
        and (transparent == "dropped" or not header.has_transparency_data)
        and (header.format != "PNG" or _is_whole_png(data))
    ):
        flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        if pixels is not None:
            return pixels
    # Pillow also names the reason if OpenCV failed.
    with _header(io.BytesIO(data), shrink=True) as image:
        part = 1
        while image.width * image.height > MAX_PIXELS * part**2:
            part *= 2
        if part > 1:
            image.draft(None, (image.width // part, image.height // part))
        return _rgb(image, transparent)


def _is_whole_png(data: bytes) -> bool:
    """Whether all chunks of a PNG end within the file. OpenCV would allocate whatever size a chunk claims."""
    place = 8
    while (length := int.from_bytes(data[place : place + 4], "big")) <= len(data) - place - 12:
        if data[place + 4 : place + 8] == b"IEND":
            return True
        place += 12 + length
    return False


def _rgb(image: Image.Image, transparent: Transparent) -> np.ndarray:
    """Any Pillow image as uint8 [H, W, 3], on white or with alpha ignored."""
    key = image.info.get("transparency")
    if isinstance(image, PngImagePlugin.PngImageFile) and isinstance(key, int) and image.tile:
        scale = {"L;2": 255 // 3, "L;4": 255 // 15}.get(str(image.tile[0].args), 1)
        image.info["transparency"] = key * scale  # Pillow scales the pixels, but not this
    image.load()
    if 0 in image.size:
        raise _Refused("is empty.")
    if _SIGNED in getattr(image, "tag_v2", {}).get(SAMPLEFORMAT, ()):
        raise _Refused(_NO_WHITE.format("numbers with a sign"))
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return cv2.cvtColor(_eight_bits(image, transparent), cv2.COLOR_GRAY2RGB)
    if image.mode in ("La", "RGBa"):  # premultiplied alpha
        image = image.convert("LA" if image.mode == "La" else "RGBA")
    if image.has_transparency_data:
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        if transparent == "white":
            ground = Image.new("RGB", image.size, "white")
            ground.paste(image, mask=image)
            image = ground
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # each copy takes memory


def _eight_bits(image: Image.Image, transparent: Transparent) -> np.ndarray:
    """A grey image of more than 8 bits, scaled to uint8 [H, W]. Refused if its white level is unknown."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})  # the tags of a TIFF
    if image.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise _Refused(_NO_WHITE.format("floats that are not all from 0 to 1"))
        grey = (values * 255).round()
    elif image.mode == "I" and image.format != "PPM":  # of PPM: sixteen bits, in full
        raise _Refused(_NO_WHITE.format("numbers of 32 bits"))
    else:
        bits = tags.get(BITSPERSAMPLE, (16,))[0]
        grey = values >> (bits - 8)
    if tags.get(PHOTOMETRIC_INTERPRETATION) == 0:  # white is 0
        grey = 255 - grey
    if transparent == "white" and isinstance(key := image.info.get("transparency"), int):
        grey = np.where(values == key, 255, grey)
    return grey.astype(np.uint8)


def _of_array(array: np.ndarray, transparent: Transparent) -> np.ndarray:
    """uint8 [H, W, 3] of an array that is an image."""
    channels = array.shape[2] if array.ndim == 3 else 1 if array.ndim == 2 else 0
    if array.dtype != np.uint8 or channels not in (1, 3, 4) or 0 in array.shape:
        raise _Refused(
            f"is an array of {array.dtype}, {list(array.shape)}. Give uint8 from 0 to 255: [height, width] grey, "
            f"[height, width, 3] RGB or [height, width, 4] RGBA."
        )
    if channels == 3:
        return np.ascontiguousarray(array)
    if channels == 1:
        return cv2.cvtColor(array, cv2.COLOR_GRAY2RGB)
    return _rgb(Image.fromarray(array), transparent)


def _orientation(header: Image.Image, data: bytes | None = None) -> int:
    """The EXIF orientation, 1 to 8 (1 = as stored). `data`: the file's content, unless the image is decoded."""
    if header.format == "TIFF":  # Pillow has turned it while decoding
        return 1
    if header.format == "PNG" and data is not None and b"eXIf" not in data:
        return 1  # Pillow would decode the image to find it
    try:
        orientation: int = header.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF data do not make the image bad
        return 1
    return orientation


class _WithoutWarnings:
    """Silences Pillow's warnings about unusual files, which would be noise, or errors if warnings are errors.

    Warning filters are global: the first thread that enters sets them, and the last that leaves restores them.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\b")
            self._inside += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._before.__exit__(None, None, None)


_without_warnings = _WithoutWarnings()
