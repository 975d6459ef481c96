"""The sprite bank: real drawings of everyday things by several vendors."""

import functools
import io
from dataclasses import dataclass
from importlib import resources

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

SPRITE_SIDE = 64


@dataclass(frozen=True)
class SpriteBank:
    """Nouns from the most to the least distinct, their plurals, and their drawings by vendor.

    `images[noun, vendor]` holds one or two uint8 arrays [64, 64, 4], RGBA (not premultiplied). Each drawing is centred,
    and its longest visible side is 64 pixels. A vendor without a drawing has no key.
    """

    nouns: tuple[str, ...]
    plurals: dict[str, str]
    vendors: tuple[str, ...]
    images: dict[tuple[str, str], tuple[np.ndarray, ...]]


@functools.cache
def load_sprites() -> SpriteBank:
    """The bank that comes with the package. It is decoded once per process, and its arrays are read-only."""
    stored = resources.files(__package__).joinpath("sprites.parquet").read_bytes()
    table = pq.read_table(io.BytesIO(stored), columns=["noun", "plural", "vendor", "webp"])
    plurals: dict[str, str] = {}
    images: dict[tuple[str, str], tuple[np.ndarray, ...]] = {}
    for row in table.to_pylist():
        plurals[row["noun"]] = row["plural"]
        key = (row["noun"], row["vendor"])
        images[key] = (*images.get(key, ()), _decode(row["webp"]))
    vendors = tuple(sorted({vendor for _, vendor in images}))
    return SpriteBank(nouns=tuple(plurals), plurals=plurals, vendors=vendors, images=images)


def _decode(webp: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(webp), formats=["WEBP"]) as stored:
        image = np.array(stored.convert("RGBA"))
    image.setflags(write=False)
    return image
