import contextlib
import io
import os
import signal
import socket
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from albef.config import UserError
from albef.data import images
from albef.data.images import BadImage, open_image

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
    "moving webp": encoded(PICTURE, "WEBP", save_all=True, append_images=[PICTURE.transpose(0)]),
    "two jpegs": encoded(PICTURE, "MPO", save_all=True, append_images=[PICTURE.transpose(0)]),
    "gif": encoded(PICTURE, "GIF"),
    "moving gif": encoded(PICTURE, "GIF", save_all=True, append_images=[PICTURE.transpose(0)]),
    "moving png": encoded(PICTURE, "PNG", save_all=True, append_images=[PICTURE.transpose(0)]),
    "bmp": encoded(PICTURE, "BMP"),
    "tiff": encoded(PICTURE, "TIFF"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_opens_as_pillow_has_it(kind, tmp_path):
    (tmp_path / "picture").write_bytes(KINDS[kind])
    pixels = open_image(tmp_path / "picture", obey_exif=True, transparent="dropped")
    with Image.open(io.BytesIO(KINDS[kind])) as picture:
        expected = np.asarray(picture.convert("RGBA").convert("RGB"))
    if kind == "cmyk":
        expected = np.asarray(Image.open(io.BytesIO(KINDS[kind])).convert("RGB"))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.array_equal(pixels, expected)
    assert np.array_equal(pixels, open_image(KINDS[kind], obey_exif=False, transparent="dropped"))


def test_sixteen_bits_are_scaled_not_clipped():
    deep = rng.integers(0, 2**16, (6, 5), dtype=np.uint16)
    pixels = open_image(cv2.imencode(".png", deep)[1].tobytes(), obey_exif=True)
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
    assert np.array_equal(open_image(data, obey_exif=True), upright)
    assert np.array_equal(open_image(data, obey_exif=False), stored)
    assert upright.shape[0] == (70 if orientation > 4 else 50)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_data_leave_the_picture_as_it_is_stored(kind):
    exif = Image.Exif()
    exif[0x0112] = 1
    whole, chance = exif.tobytes().removeprefix(b"Exif\0\0"), np.random.default_rng(0)
    broken = [b"II*\0", *(whole[:length] for length in range(len(whole)))]
    broken += [chance.integers(256, size=length, dtype=np.uint8).tobytes() for length in range(40)]
    options = {"dpi": (72, 72)} if kind == "JPEG" else {}  # else Pillow looks into the EXIF data for them
    expected = open_image(encoded(PICTURE, kind, **options), obey_exif=False)
    for content in broken:
        data = encoded(PICTURE, kind, exif=b"Exif\0\0" + content, **options)
        assert np.array_equal(open_image(data, obey_exif=True), expected)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>404</html>", "HTML"),
        (b"\n<html>", "HTML"),
        (b"%PDF-1.7 something", "known format"),
        (b"8BPS", "in a format that is not read .Photoshop."),
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
    with pytest.raises(BadImage, match=reason) as caught:
        open_image(file, obey_exif=True)
    assert str(caught.value).startswith(str(file))
    assert isinstance(caught.value, UserError)
    with pytest.raises(BadImage, match=r"^the image"):
        open_image(content, obey_exif=True)


def test_missing_files_and_folders_are_bad_pictures(tmp_path):
    with pytest.raises(BadImage, match=r"none\.jpg: no such file\.$"):  # rows may not be where it was named
        open_image(tmp_path / "none.jpg", obey_exif=True)
    with pytest.raises(BadImage, match="cannot be read"):
        open_image(tmp_path, obey_exif=True)


def test_the_size_is_judged_before_anything_is_decoded(monkeypatch):
    def decode(*arguments):
        raise AssertionError("decoded")

    monkeypatch.setattr(cv2, "imdecode", decode)
    monkeypatch.setattr(Image.Image, "convert", decode)
    with pytest.raises(BadImage, match="megapixels"):
        open_image(png_header(12_000, 10_000), obey_exif=True)


def test_a_damaged_tiff_is_a_bad_picture():
    whole = KINDS["tiff"]
    place = whole.index(struct.pack("<HH", 273, 4))  # where the pixels are: a number of four bytes
    damaged = whole[: place + 2] + struct.pack("<H", 2) + whole[place + 4 :]  # now a text
    with pytest.raises(BadImage, match=r"cannot be read as an image \("):
        open_image(damaged, obey_exif=True)


class Odd(Exception):
    """What no list of exceptions has."""


@pytest.mark.parametrize(
    "error",
    [Odd(), MemoryError(), AssertionError("odd"), RecursionError(), ZeroDivisionError(), UserWarning("odd")],
)
def test_whatever_a_decoder_raises_is_a_bad_picture(monkeypatch, error):
    def decode(*arguments, **options):
        raise error

    monkeypatch.setattr(Image, "open", decode)
    with pytest.raises(
        BadImage, match=f"^the image: cannot be read as an image .{error or type(error).__name__}"
    ):
        open_image(KINDS["bmp"], obey_exif=True)
    monkeypatch.setattr(cv2, "imdecode", decode)
    with pytest.raises(BadImage):
        open_image(KINDS["jpeg"], obey_exif=True)


def test_ctrl_c_while_decoding_stays_ctrl_c(monkeypatch):
    def decode(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(cv2, "imdecode", decode)
    with pytest.raises(KeyboardInterrupt):
        open_image(KINDS["jpeg"], obey_exif=True)


def test_warning_filters_are_as_before_whoever_decodes():
    exif = encoded(PICTURE, "WEBP", exif=b"Exif\0\0II*\0\0\0\0\0\xff\xff")
    before = list(warnings.filters)
    errors = []

    def decode():
        try:
            for _ in range(30):
                open_image(exif, obey_exif=True)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=decode) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert warnings.filters == before


@pytest.mark.parametrize("length", [2**32 - 1, 2**31 - 1, 5000])
def test_a_chunk_that_claims_more_than_there_is_takes_no_memory(monkeypatch, length):
    decoded = []
    monkeypatch.setattr(cv2, "imdecode", lambda *arguments: decoded.append(arguments))  # which takes it
    for name in (b"IDAT", b"IEND"):
        place = KINDS["png"].index(name) - 4
        data = KINDS["png"][:place] + struct.pack(">I", length) + KINDS["png"][place + 4 :] + bytes(100)
        with contextlib.suppress(BadImage):
            open_image(data, obey_exif=True)
    whole = KINDS["png"][:-12]  # nothing is missing but the mark of the end
    assert np.array_equal(open_image(whole, obey_exif=True), PIXELS)
    assert not decoded
    open_image(KINDS["png"], obey_exif=True)
    assert decoded


@pytest.fixture
def no_hanging() -> Iterator[None]:
    signal.alarm(20)
    yield
    signal.alarm(0)


@pytest.mark.usefixtures("no_hanging")
def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket.png"))
    for path in (tmp_path / "pipe.png", tmp_path / "socket.png", Path("/dev/zero")):
        with pytest.raises(BadImage, match="it is a pipe, socket or device"):
            open_image(path, obey_exif=True)
    listening.close()
    (tmp_path / "link.png").symlink_to("nowhere.png")
    with pytest.raises(BadImage, match=r"link\.png: is a link to nowhere\.png, which does not exist"):
        open_image(tmp_path / "link.png", obey_exif=True)
    (tmp_path / "circle.png").symlink_to("circle.png")
    for odd in (
        tmp_path / "circle.png",
        "a\0b.png",
        tmp_path / ("a" * 300),
        "",
        tmp_path / "link.png" / "x.png",
    ):
        with pytest.raises(BadImage):
            open_image(odd, obey_exif=True)


def test_files_of_more_than_a_gigabyte_are_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "MAX_BYTES", 1000)
    (tmp_path / "a.jpg").write_bytes(KINDS["jpeg"] + bytes(1000))
    with pytest.raises(BadImage, match="megabytes; shrink it"):
        open_image(tmp_path / "a.jpg", obey_exif=True)


@pytest.mark.parametrize("kind", ["jpeg", "grey jpeg", "cmyk", "progressive"])
def test_large_jpegs_are_decoded_at_a_part_of_their_size(monkeypatch, kind):
    whole = open_image(KINDS[kind], obey_exif=True)
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    monkeypatch.setattr(cv2, "imdecode", None)  # which would decode all of it
    half = open_image(KINDS[kind], obey_exif=True)
    assert half.shape == (25, 35, 3)
    expected = cv2.resize(whole, (35, 25), interpolation=cv2.INTER_AREA)
    assert np.abs(half.astype(int) - expected).mean() < 3
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    assert open_image(KINDS[kind], obey_exif=True).shape == (7, 9, 3)
    with pytest.raises(BadImage, match="megapixels"):  # where pixels are counted
        open_image(KINDS[kind], obey_exif=True, shrink=False)
    exif = Image.Exif()
    exif[0x0112] = 6
    assert open_image(encoded(PICTURE, "JPEG", exif=exif), obey_exif=True).shape == (9, 7, 3)


@pytest.mark.parametrize("kind", ["png", "webp", "gif", "bmp", "tiff"])
def test_what_can_only_be_decoded_whole_is_refused_when_large(monkeypatch, kind):
    monkeypatch.setattr(images, "MAX_PIXELS", 1000)
    with pytest.raises(BadImage, match="megapixels; shrink it"):
        open_image(KINDS[kind], obey_exif=True)


def test_jpegs_have_a_bound_too(monkeypatch):
    large = KINDS["jpeg"].replace(struct.pack(">HH", 50, 70), struct.pack(">HH", 40_000, 40_000), 1)
    with pytest.raises(BadImage, match="1000 megapixels"):
        open_image(large, obey_exif=True)
    monkeypatch.setattr(images, "MAX_PROGRESSIVE_PIXELS", 3000)
    with pytest.raises(BadImage, match="megapixels"):
        open_image(KINDS["progressive"], obey_exif=True)


HEIC = Path(__file__).parent / "heic"


def test_heic_is_read_with_the_extra():
    pytest.importorskip("pi_heif")
    turned = open_image(HEIC / "turned.heic", obey_exif=True)  # 64 × 48: white above, red to the left, blue
    assert turned.shape == (64, 48, 3)
    for place, colour in (((5, 40), (240, 240, 240)), ((10, 10), (200, 30, 30)), ((50, 10), (30, 30, 200))):
        assert np.abs(turned[place].astype(int) - colour).max() < 20
    alpha = open_image(HEIC / "alpha.heic", obey_exif=True)  # transparent to the left
    assert np.abs(alpha[40, 10].astype(int) - 255).max() < 5
    assert np.abs(alpha[40, 60].astype(int) - (30, 30, 200)).max() < 20
    with pytest.raises(BadImage, match="cannot be read"):
        open_image((HEIC / "turned.heic").read_bytes()[:400], obey_exif=True)


def test_without_the_extra_heic_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    with pytest.raises(BadImage, match=r"is an image in HEIC, .*albef\[heic\]"):
        open_image(HEIC / "turned.heic", obey_exif=True)
