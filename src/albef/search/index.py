"""An index: all that searching needs of a folder of images, so that each image is encoded only once."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from albef.config import ModelConfig, UserError
from albef.data.files import Identity, found_below, summary
from albef.data.images import BadImage
from albef.data.records import LeftOut
from albef.disk import check_room
from albef.engine import IMAGES_AT_ONCE, Engine
from albef.errors import reading
from albef.manifest import MANIFEST_FILE, plain, verify
from albef.writing import whole_folder

FORMAT_VERSION = 1
FACTS_FILE, FEATURES_FILE, TOKENS_FILE, SKIPPED_FILE = FILES = (
    "index.json",
    "features.npy",
    "tokens.npy",
    "skipped.jsonl",
)


@dataclass(frozen=True)
class Index:
    """Indexed images: their features in memory, their tokens on disk."""

    model: str  # what `Engine.load` takes to load the model of the index
    weights: str  # that model's fingerprint
    paths: tuple[Path, ...]  # absolute
    features: np.ndarray  # float32 [N, F], unit length
    tokens: np.ndarray  # float16 [N, patches + 1, width], mapped from the file
    num_skipped: int  # files that could not be read as images, listed in skipped.jsonl

    def __len__(self) -> int:
        return len(self.paths)


def find_images(places: Sequence[Path]) -> tuple[list[Path], list[LeftOut]]:
    """Absolute paths of the given files and of all images in and below the given folders, and the files left out.

    Each path comes once. Raises `UserError` for a place that does not exist, and if there is no image at all.
    """
    found: dict[Path, None] = {}
    left_out: list[LeftOut] = []
    entered: set[Identity] = set()
    for place in (place.absolute() for place in places):
        if not os.path.exists(place):
            raise UserError(f"{place}: no such file or folder. Give images or folders of images.")
        if not os.path.isdir(place):
            found[place] = None
            continue
        inside = found_below(place, entered)
        found |= dict.fromkeys(place / name for name in inside.images)
        left_out += [replace(one, origin=str(place / one.origin)) for one in inside.left_out]
    if not found:
        raise UserError(
            f"{', '.join(map(str, places))}: no images there. Give images or folders of images. "
            f"{summary(left_out)}".rstrip()
        )
    return list(found), left_out


def build_index(
    engine: Engine,
    images: Sequence[Path],
    out: Path,
    left_out: Sequence[LeftOut] = (),
    batch_size: int = IMAGES_AT_ONCE,
) -> Index:
    """Writes an index of images and folders of images into the folder `out`, whole or not at all, and returns it.

    An image takes 2 bytes × tokens × width: 395 kB with a `base` model at 256 pixels. Files that cannot be read as
    images are skipped and counted. `skipped.jsonl` lists them with the reason, with all other files that were left out
    here or before (`left_out`). An existing index is replaced. Raises `UserError` if the folder holds anything else, if
    no image is readable, or if the disk has too little room.
    """
    files, others = find_images(images)
    bad: dict[int, BadImage] = {}
    features = []
    config = engine.config
    shape = (config.grid**2 + 1, config.image_width)
    check_room(out, index_bytes(config, len(files)))
    with whole_folder(out, FILES, "xxh3-128") as folder:
        # The number of rows is known only after the last image. The header has a fixed length and is written again
        # then.
        with (folder / TOKENS_FILE).open("wb") as file:
            file.write(header(0, shape))
            batches = engine.image_encodings(files, batch_size, bad)
            for encoding in engine.track(batches, "indexing", -(-len(files) // batch_size)):
                file.write(encoding.tokens.to(torch.float16).cpu().numpy().tobytes())
                features.append(encoding.feature.float().cpu().numpy())
            file.seek(0)
            file.write(header(len(files) - len(bad), shape))
        if not features:
            raise UserError(f"None of the {len(files)} files is a readable image: {bad[0]}")
        np.save(folder / FEATURES_FILE, np.concatenate(features), allow_pickle=False)
        with (folder / SKIPPED_FILE).open("w", encoding="utf-8") as file_of_skipped:
            skipped = [{"path": str(files[number]), "reason": str(error)} for number, error in bad.items()]
            skipped += [
                {"path": one.origin, "reason": f"left out: {one.reason}"} for one in (*left_out, *others)
            ]
            file_of_skipped.writelines(json.dumps(line) + "\n" for line in skipped)
        facts = {
            "format_version": FORMAT_VERSION,
            "model": engine.name,
            "weights": engine.fingerprint,
            "num_skipped": len(bad),
            "paths": [str(path) for number, path in enumerate(files) if number not in bad],
        }
        (folder / FACTS_FILE).write_text(json.dumps(facts, indent=0), "utf-8")
    return load_index(out)


def index_bytes(config: ModelConfig, num_images: int) -> int:
    """Bytes of an index on disk: tokens in half and features in single precision, per image."""
    return num_images * (2 * (config.grid**2 + 1) * config.image_width + 4 * config.feature_width)


def header(rows: int, shape: tuple[int, int]) -> bytes:
    """The header of a .npy file of float16 [rows, *shape]. Its length is the same for any number of rows."""
    start = io.BytesIO()
    facts = {"descr": "<f2", "fortran_order": False, "shape": (rows, *shape)}
    np.lib.format.write_array_header_1_0(start, facts)
    return start.getvalue()


def load_index(folder: Path) -> Index:
    """The index in a folder. Raises `UserError` if there is none, or if it is not whole.

    If it is replaced meanwhile, it is read again, since its files would belong to two indexes.
    """
    reading.set(folder)
    while True:
        before = identity(folder)
        try:
            index = read_index(folder)
        except UserError:
            if identity(folder) == before:
                raise
            continue
        if identity(folder) == before:
            return index


def identity(folder: Path) -> tuple[int, ...]:
    """The identity of a folder, whatever its name. Empty if there is none."""
    try:
        found = folder.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino


def read_index(folder: Path) -> Index:
    """Reads the index from its files as they are now."""
    for name in FILES[:3]:
        if not os.path.isfile(folder / name):
            raise UserError(f"{folder}: has no {name}, so it is no index. Make one with albef index.")
    try:
        if (folder / MANIFEST_FILE).is_file():  # tokens may be gigabytes, so only `albef verify` checks them
            verify(folder, (FACTS_FILE, FEATURES_FILE))
        facts = json.loads((folder / FACTS_FILE).read_text("utf-8"))
        version = facts["format_version"]
        features = np.load(folder / FEATURES_FILE, allow_pickle=False)
        tokens = np.load(folder / TOKENS_FILE, mmap_mode="r", allow_pickle=False)
        paths = tuple(Path(path) for path in facts["paths"])
        if not isinstance(facts["model"], str):
            raise TypeError(f"model is {facts['model']!r}")
        index = Index(facts["model"], facts["weights"], paths, features, tokens, facts["num_skipped"])
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        ArithmeticError,
        EOFError,
        MemoryError,
        RecursionError,
    ) as error:
        raise UserError(
            f"{folder}: this index cannot be read ({plain(error)}). Make it again with albef index."
        ) from None
    fits = (features.ndim, tokens.ndim) == (2, 3) and len(paths) == len(features) == len(tokens)
    if version != FORMAT_VERSION or not fits:
        raise UserError(
            f"{folder}: this index has another format or is damaged. Make it again with albef index."
        )
    return index
