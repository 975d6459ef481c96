"""A fingerprint that recognises training data."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import xxhash

from albef.config import DataConfig
from albef.data.files import found_below
from albef.manifest import digest


def data_fingerprint(config: DataConfig) -> str:
    """A hash of the data. It does not depend on where they are or how the recipe names them.

    For an annotation file it is a hash of its content, for a folder a hash of the names and sizes of its images and
    captions. Pixels are not read. Pictograms follow from the settings, so their name is enough.
    """
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
