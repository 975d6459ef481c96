"""What a file is, by its first bytes."""

import io

import pytest
from PIL import Image

from albef.data.formats import FORMATS, START_BYTES, image_format

WRITTEN = {kind: kind for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM")}
WRITTEN |= {"MPO": "JPEG", "ICO": "icon", "DDS": "DDS", "QOI": "QOI"}


@pytest.mark.parametrize(("kind", "known_as"), WRITTEN.items())
def test_what_pillow_writes_is_known_by_its_beginning(kind: str, known_as: str) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, kind)
    assert image_format(stream.getvalue()[:START_BYTES]) == known_as


@pytest.mark.parametrize(
    ("start", "known_as"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1miafavif", "AVIF"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "raw photograph"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1heic", None),  # a film; the last word is beyond the list
        (b"\0\0\0\0ftypheic", "HEIF"),
        (b"II*\0\x10\0\0\0CR\x02\0", "raw photograph"),
        (b"P5 16 16 255\n", "PPM"),
        (b"P6\n", "PPM"),
        (b"Price, per piece", None),
        (b"P", None),
        (b"<svg xmlns=", "SVG"),
        (b'\xef\xbb\xbf<?xml version="1.0"?>\n<svg', "SVG"),
        (b'<?xml version="1.0"?><html>', None),
        (b"#!/bin/sh", None),
        (b"PK\x03\x04", None),
        (b"\x89PN", None),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"", None),
    ],
)
def test_other_beginnings(start: bytes, known_as: str | None) -> None:
    assert image_format(start) == known_as
    assert (known_as in FORMATS) == (known_as in ("HEIF", "AVIF", "PPM"))
