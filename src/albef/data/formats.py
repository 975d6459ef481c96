"""The kind of image in a file, by its first bytes, since file names may be wrong."""

from __future__ import annotations

import importlib.util

from PIL import features

START_BYTES = 512  # of a file, which tell its kind

# Formats that can be read, by Pillow's names.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM")
SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".avif", ".heic", ".heif", ".hif", ".jp2", ".pbm", ".pgm", ".ppm", ".pnm"}
)

_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"BM": "BMP",
    b"II*\0\x10\0\0\0CR": "raw photograph",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",
    # Image formats that cannot be read here.
    b"\0\0\0\x0cJXL \r\n\x87\n": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"II\xbc\x01": "JPEG XR",
    b"IIU\0": "raw photograph",
    b"IIRO": "raw photograph",
    b"MMOR": "raw photograph",
    b"FUJIFILMCCD-RAW": "raw photograph",
    b"8BPS": "Photoshop",
    b"gimp xcf": "GIMP",
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance",
    b"\0\0\x01\0": "icon",
    b"icns": "icon",
    b"qoif": "QOI",
    b"DDS ": "DDS",
    b"AT&TFORM": "DjVu",
}
_AVIF = {b"avif", b"avis"}
_HEIF = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}


def image_format(start: bytes) -> str | None:
    """The format of a file with these first bytes: one of `FORMATS` if it can be read, else its name. None: no image."""
    for signature, name in _STARTS.items():
        if start.startswith(signature):
            return name
    if start.startswith(b"RIFF") and start[8:12] == b"WEBP":
        return "WEBP"
    if start[4:8] == b"ftyp":  # MP4's container: a list of what the content agrees with
        length = max(int.from_bytes(start[:4], "big"), 16)
        brands = {start[place : place + 4] for place in (8, *range(16, min(length, len(start)), 4))}
        if b"crx " in brands:
            return "raw photograph"
        return "AVIF" if brands & _AVIF else "HEIF" if brands & _HEIF else None
    if len(start) > 2 and start[:1] == b"P" and start[1:2] in b"123456f" and start[2:3] in b" \t\r\n#":
        return "PPM"
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n")
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"<svg" in text):
        return "SVG"
    return None


def start_of(path: str) -> bytes:
    """The first bytes of a file."""
    with open(path, "rb") as file:
        return file.read(START_BYTES)


def why_unread(kind: str) -> str | None:
    """Why images of this kind cannot be read, as words after their number. None if they can."""
    if kind == "HEIF" and importlib.util.find_spec("pi_heif") is None:
        return "in HEIC, which takes an extra: pip install 'albef[heic]'"
    if kind == "AVIF" and not features.check("avif"):
        return "in AVIF, which the installed Pillow can't read"
    return None if kind in FORMATS else f"in a format that is not read ({kind})"
