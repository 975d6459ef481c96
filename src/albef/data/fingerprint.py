"""By what training data are known again."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import xxhash

from albef.config import DataConfig
from albef.data.files import found_below
from albef.manifest import digest


def data_fingerprint(config: DataConfig) -> str:
    """A hash that other records give another one of: wherever they lie, and however the recipe names them.

    Of an annotation file it is that of its content, of a folder that of its images' and captions' names and
    sizes. The pixels of images are not read. Pictograms follow from the settings, so their name stands for them.
    """
    path = Path(os.path.expanduser(config.source))
    if path.is_file():
        return digest(path, "xxh3-128")
    if path.is_dir():
        hasher = xxhash.xxh3_128()
        found = found_below(path)
        for name in sorted([*found.images, *found.texts], key=lambda name: name.split("/")):
            with contextlib.suppress(OSError):  # gone since
                hasher.update(os.fsencode(f"{name} {os.stat(path / name).st_size}\n"))
        return str(hasher.hexdigest())
    return config.source
