"""Damaged image files of every format: each is an image or a bad one, and nothing else happens."""

import io
import random
import resource
import struct
import time
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from faulty import number_of, tell
from PIL import Image

from albef.data.images import BadImage, open_image

FILES = number_of(500, 20_000)
HEIC = Path(__file__).parent.parent / "data" / "heic" / "alpha.heic"


def written(mode: str, kind: str, **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 4), dtype=np.uint8)
    image = Image.fromarray(noise).resize((64, 48), Image.Resampling.BICUBIC).convert(mode)
    image = image.point(lambda value: value / 255 + 0.0) if mode == "F" else image
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
EXIF[0x010F] = "a camera"
VALID: dict[str, list[bytes]] = {
    "JPEG": [
        written("RGB", "JPEG", exif=EXIF),
        written("RGB", "JPEG", progressive=True),
        written("CMYK", "JPEG"),
        written("RGB", "MPO", save_all=True, append_images=[Image.new("RGB", (64, 48))]),
    ],
    "PNG": [
        written("RGB", "PNG", exif=EXIF),
        written("RGBA", "PNG"),
        written("P", "PNG", transparency=3),
        written("I;16", "PNG", transparency=3),
        written("RGB", "PNG", save_all=True, append_images=[Image.new("RGB", (64, 48))]),
    ],
    "WEBP": [
        written("RGB", "WEBP", exif=EXIF),
        written("RGBA", "WEBP", lossless=True),
        written("RGB", "WEBP", save_all=True, append_images=[Image.new("RGB", (64, 48))]),
    ],
    "GIF": [
        written("P", "GIF", transparency=3),
        written("P", "GIF", save_all=True, append_images=[Image.new("P", (64, 48))]),
    ],
    "BMP": [written(mode, "BMP") for mode in ("RGB", "RGBA", "P", "1")],
    "TIFF": [
        written("RGB", "TIFF", exif=EXIF),
        written("RGBA", "TIFF", compression="tiff_lzw"),
        written("RGB", "TIFF", compression="jpeg"),
        written("F", "TIFF"),
        written("I;16", "TIFF"),
        written("1", "TIFF", compression="group4"),
        written("L", "TIFF", compression="tiff_adobe_deflate", big_tiff=True),
        written("P", "TIFF", compression="packbits"),
    ],
    "AVIF": [written("RGB", "AVIF", exif=EXIF, speed=10), written("RGBA", "AVIF", speed=10)],
    "JPEG2000": [written("RGB", "JPEG2000"), written("RGBA", "JPEG2000", no_jp2=True)],
    "PPM": [written("RGB", "PPM"), written("L", "PPM"), b"P2\n4 2\n255\n0 50 100 150 200 250 0 9\n"],
    "HEIF": [HEIC.read_bytes()],
}
EXTREMES = [0, 1, 2**7, 2**8 - 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]


def mutated(data: bytes, other: bytes, random_: random.Random) -> bytes:
    """The file with one to four changes: bytes, whole numbers, pieces cut out, doubled or of another file."""
    changed = bytearray(data)
    for _ in range(random_.randrange(1, 5)):
        # The structure is at the beginning of most formats, and in TIFF at the end.
        place = min(int(len(changed) * random_.random() ** random_.choice([1, 4, 0.2])), len(changed) - 1)
        way = random_.randrange(7)
        if way <= 1:
            changed[place] = random_.randrange(256)
        elif way == 2:
            changed[place] ^= 1 << random_.randrange(8)
        elif way == 3:
            size = random_.choice([2, 4])
            number = random_.choice(EXTREMES) % 2 ** (8 * size)
            changed[place : place + size] = number.to_bytes(size, random_.choice(["big", "little"]))
        elif way == 4:
            del changed[place : place + random_.choice([1, 2, 10, len(changed)])]
        elif way == 5:
            piece = changed[place : place + random_.randrange(1, 60)]
            changed[place:place] = piece * random_.choice([1, 1, 1000])
        else:
            start = random_.randrange(len(other))
            changed[place : place + 20] = other[start : start + 20]
        if not changed:
            break
    return with_checksums(bytes(changed)) if random_.random() < 0.7 else bytes(changed)


def with_checksums(data: bytes) -> bytes:
    """A PNG with the checksums of its changed chunks, without which nothing else in it would be looked at."""
    if not data.startswith(b"\x89PNG"):
        return data
    whole, place = bytearray(data), 8
    while place + 12 <= len(whole):
        (length,) = struct.unpack_from(">I", whole, place)
        if place + 12 + length > len(whole):
            break
        checksum = zlib.crc32(whole[place + 4 : place + 8 + length])
        struct.pack_into(">I", whole, place + 8 + length, checksum)
        place += 12 + length
    return bytes(whole)


def test_mutated_image_files_are_images_or_bad_ones() -> None:
    results: Counter[str] = Counter()
    said: set[str] = set()
    slowest, most = (0.0, ""), 0
    kinds = list(VALID)
    for number in range(FILES):
        random_ = random.Random(number)
        kind = kinds[number % len(kinds)]
        data = mutated(random_.choice(VALID[kind]), random_.choice(VALID[random_.choice(kinds)]), random_)
        begun, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            pixels = open_image(
                data, obey_exif=bool(number % 2), transparent=random_.choice(["white", "dropped"])
            )
        except BadImage as error:
            results["bad"] += 1
            said.add(str(error))
        else:
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 3
            assert pixels.shape[2] == 3
            assert 0 not in pixels.shape
            results["read"] += 1
        slowest = max(slowest, (time.process_time() - begun, f"{kind} {number}"))
        most = max(most, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
    assert all(sentence.startswith("the image: ") and "\n" not in sentence for sentence in said)
    assert min(results["bad"], results["read"]) > FILES / 10  # else nothing was changed, or all of it
    assert most < 1500, f"a file took {most} MB"  # as an image of 100 megapixels does
    tell(
        f"image files: {FILES} mutated ones of {len(kinds)} formats, {results['read']} read, {results['bad']} bad; "
        f"{slowest[0]:.2f} s for the slowest ({slowest[1]}), {most} MB for the largest"
    )


@pytest.mark.parametrize("kind", VALID)
def test_the_files_that_are_mutated_are_images(kind: str) -> None:
    if kind == "HEIF":
        pytest.importorskip("pi_heif")
    for data in VALID[kind]:
        assert open_image(data, obey_exif=True).size
