import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from albef.config import UserError
from albef.data.pictures import BadPicture, open_picture

rng = np.random.default_rng(0)
PIXELS = cv2.resize(rng.integers(0, 256, (5, 7, 3), dtype=np.uint8), (70, 50), interpolation=cv2.INTER_CUBIC)
PICTURE = Image.fromarray(PIXELS)


def encoded(picture: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG that announces a size and has next to no content."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pieces = chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + pieces


KINDS = {
    "jpeg": encoded(PICTURE, "JPEG"),
    "progressive": encoded(PICTURE, "JPEG", progressive=True),
    "grey jpeg": encoded(PICTURE.convert("L"), "JPEG"),
    "cmyk": encoded(PICTURE.convert("CMYK"), "JPEG"),
    "png": encoded(PICTURE, "PNG"),
    "grey png": encoded(PICTURE.convert("L"), "PNG"),
    "black and white": encoded(PICTURE.convert("1"), "PNG"),
    "palette": encoded(PICTURE.convert("P"), "PNG"),
    "transparent palette": encoded(PICTURE.convert("P"), "PNG", transparency=bytes(range(256))),
    "alpha": encoded(Image.merge("RGBA", (*PICTURE.split(), PICTURE.convert("L"))), "PNG"),
    "webp": encoded(PICTURE, "WEBP"),
    "gif": encoded(PICTURE, "GIF"),
    "moving gif": encoded(PICTURE, "GIF", save_all=True, append_images=[PICTURE.transpose(0)]),
    "moving png": encoded(PICTURE, "PNG", save_all=True, append_images=[PICTURE.transpose(0)]),
    "bmp": encoded(PICTURE, "BMP"),
    "tiff": encoded(PICTURE, "TIFF"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_opens_as_pillow_has_it(kind, tmp_path):
    (tmp_path / "picture").write_bytes(KINDS[kind])
    pixels = open_picture(tmp_path / "picture", obey_exif=True, transparent="dropped")
    with Image.open(io.BytesIO(KINDS[kind])) as picture:
        expected = np.asarray(picture.convert("RGBA").convert("RGB"))
    if kind == "cmyk":
        expected = np.asarray(Image.open(io.BytesIO(KINDS[kind])).convert("RGB"))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, expected)
    assert np.array_equal(pixels, open_picture(KINDS[kind], obey_exif=False, transparent="dropped"))


def test_sixteen_bits_are_scaled_not_clipped():
    deep = rng.integers(0, 2**16, (6, 5), dtype=np.uint16)
    pixels = open_picture(cv2.imencode(".png", deep)[1].tobytes(), obey_exif=True)
    assert np.array_equal(pixels, np.repeat((deep >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed_or_ignored(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PICTURE, kind, exif=exif)
    with Image.open(io.BytesIO(data)) as picture:
        upright = np.asarray(ImageOps.exif_transpose(picture))
        stored = np.asarray(Image.open(io.BytesIO(data)))
    assert np.array_equal(open_picture(data, obey_exif=True), upright)
    assert np.array_equal(open_picture(data, obey_exif=False), stored)
    assert upright.shape[0] == (70 if orientation > 4 else 50)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of corrupt EXIF data
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_data_leave_the_picture_as_it_is_stored(kind):
    exif = Image.Exif()
    exif[0x0112] = 1
    whole, chance = exif.tobytes().removeprefix(b"Exif\0\0"), np.random.default_rng(0)
    broken = [b"II*\0", *(whole[:length] for length in range(len(whole)))]
    broken += [chance.integers(256, size=length, dtype=np.uint8).tobytes() for length in range(40)]
    options = {"dpi": (72, 72)} if kind == "JPEG" else {}  # else Pillow looks into the EXIF data for them
    expected = open_picture(encoded(PICTURE, kind, **options), obey_exif=False)
    for content in broken:
        data = encoded(PICTURE, kind, exif=b"Exif\0\0" + content, **options)
        assert np.array_equal(open_picture(data, obey_exif=True), expected)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"\n<html>", "HTML"),
        (b"%PDF-1.7 something", "known format"),
        (KINDS["jpeg"][:-200], "truncated"),
        (KINDS["progressive"][:-200], "truncated"),
        (KINDS["png"][: len(KINDS["png"]) // 2], "truncated"),
        (KINDS["webp"][:-200], "cannot be read"),
        (KINDS["bmp"][:-100], "truncated"),
        (KINDS["gif"][:-100], "truncated"),
        (KINDS["jpeg"][:30], "cannot be read|known format"),
        (png_header(30_000, 30_000), "100 megapixels"),
        (png_header(12_000, 10_000), "100 megapixels"),
        (png_header(100, 100), "cannot be read"),
    ],
)
def test_broken_pictures_are_named_with_the_reason(tmp_path, capfd, content, reason):
    file = tmp_path / "broken.jpg"
    file.write_bytes(content)
    with pytest.raises(BadPicture, match=reason) as caught:
        open_picture(file, obey_exif=True)
    assert str(caught.value).startswith(str(file))
    assert isinstance(caught.value, UserError)
    with pytest.raises(BadPicture, match=r"^the picture"):
        open_picture(content, obey_exif=True)


def test_missing_files_and_folders_are_bad_pictures(tmp_path):
    with pytest.raises(BadPicture, match="no such file"):
        open_picture(tmp_path / "none.jpg", obey_exif=True)
    with pytest.raises(BadPicture, match="cannot be read"):
        open_picture(tmp_path, obey_exif=True)


def test_the_size_is_judged_before_anything_is_decoded(monkeypatch):
    def decode(*arguments):
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    monkeypatch.setattr(Image.Image, "convert", decode)
    with pytest.raises(BadPicture, match="megapixels"):
        open_picture(png_header(12_000, 10_000), obey_exif=True)
