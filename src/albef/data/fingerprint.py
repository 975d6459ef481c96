"""A fingerprint that recognises training data."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import xxhash

from albef.config import DataConfig
from albef.data.files import found_below
from albef.data.region_files import place_of, region_files
from albef.manifest import digest

MOST_READ = 1000  # files of regions
PIECES, PIECE_BYTES = 16, 4096  # of each that are read


def data_fingerprint(config: DataConfig) -> str:
    """A hash of the data. It does not depend on where they are or how the recipe names them.

    For an annotation file it is a hash of its content, for a folder a hash of the names and sizes of its images and
    captions. Pixels are not read. Pictograms follow from the settings, so their name is enough. Regions that
    `data.regions` names follow after a +.
    """
    regions = region_fingerprint(place_of(config.regions)) if config.regions else ""
    return "+".join(filter(None, (source_fingerprint(config), regions)))


def source_fingerprint(config: DataConfig) -> str:
    """A hash of the images and texts."""
    path = Path(os.path.expanduser(config.source))
    if path.is_file():
        return digest(path, "xxh3-128")
    if path.is_dir():
        hasher = xxhash.xxh3_128()
        found = found_below(path)
        for name in sorted([*found.images, *found.texts], key=lambda name: name.split("/")):
            with contextlib.suppress(OSError):  # deleted meanwhile
                hasher.update(os.fsencode(f"{name} {os.stat(path / name).st_size}\n"))
        return str(hasher.hexdigest())
    return config.source


def region_fingerprint(place: Path) -> str:
    """A hash of the names and sizes of files of regions, and of samples of their content: they may be very large."""
    hasher = xxhash.xxh3_128()
    files = sorted(region_files(place).items())
    step = -(-len(files) // MOST_READ)
    for number, (name, file) in enumerate(files):
        with contextlib.suppress(
            OSError
        ):  # deleted meanwhile, or unreadable, which is told when they are opened
            size = os.stat(file).st_size
            hasher.update(os.fsencode(f"{name} {size}\n"))
            if number % step == 0:
                for piece in pieces(file, size):
                    hasher.update(piece)
    return str(hasher.hexdigest())


def pieces(file: Path, size: int) -> Iterator[bytes]:
    """The content of a file, or evenly spaced pieces of it if it is large, with the first and the last."""
    last, count = max(0, size - PIECE_BYTES), min(PIECES, size // PIECE_BYTES + 1)
    with file.open("rb") as content:
        for number in range(count):
            content.seek(last * number // max(1, count - 1))
            yield content.read(PIECE_BYTES)
