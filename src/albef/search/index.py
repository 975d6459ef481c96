"""An index: all that searching needs of a folder of images, so that each image is encoded only once."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from albef.config import UserError
from albef.data.files import Identity, found_below, summary
from albef.data.images import BadImage
from albef.data.records import LeftOut
from albef.disk import check_room
from albef.engine import IMAGES_AT_ONCE, Engine
from albef.errors import reading
from albef.manifest import MANIFEST_FILE, plain, verify
from albef.model.verbs import Encoding
from albef.writing import whole_folder

FORMAT_VERSION = 1
FACTS_FILE, FEATURES_FILE, TOKENS_FILE, SKIPPED_FILE, RERANKING_FOLDER = CONTENT = (
    "index.json",
    "features.npy",
    "tokens.npy",  # only of a model that can match
    "skipped.jsonl",
    "reranking",  # what other models have encoded: kept.py
)


@dataclass(frozen=True)
class Index:
    """Indexed images: their features in memory, their tokens on disk."""

    folder: Path
    model: str  # what `Engine.load` takes to load the model of the index
    weights: str  # that model's fingerprint
    paths: tuple[Path, ...]  # absolute
    features: np.ndarray  # float32 [N, F], unit length
    tokens: (
        np.ndarray | None
    )  # float16 [N, places, width], mapped from the file; None if the model cannot match
    num_skipped: int  # files that could not be read as images, listed in skipped.jsonl

    def __len__(self) -> int:
        return len(self.paths)


def counted(number: int, thing: str) -> str:
    """A number of things: "1 image", "2 images"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


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

    An image takes 2 bytes × tokens × width and 4 bytes × feature width: 396 kB with a `base` model at 256 pixels. A
    model that cannot match stores no tokens: an image takes 1 kB then. Files that cannot be read as images are skipped
    and counted. `skipped.jsonl` lists them with the reason, with all other files that were left out here or before
    (`left_out`). An existing index is replaced, with what other models kept in it. Raises `UserError` for a model
    without features, if the folder holds anything else, if no image is readable, or if the disk has too little room.
    """
    engine.must_contrast()
    files, others = find_images(images)
    bad: dict[int, BadImage] = {}
    check_room(out, index_bytes(engine, len(files)))
    with whole_folder(out, CONTENT, "xxh3-128") as folder:
        batches = engine.image_encodings(files, batch_size, bad)
        encodings = engine.track(batches, "indexing", -(-len(files) // batch_size))
        if engine.can_match:
            encodings = tokens_written(encodings, folder / TOKENS_FILE)
        features = [encoding.feature.float().cpu().numpy() for encoding in encodings]
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
            "has_tokens": engine.can_match,
            "num_skipped": len(bad),
            "paths": [str(path) for number, path in enumerate(files) if number not in bad],
        }
        (folder / FACTS_FILE).write_text(json.dumps(facts, indent=0), "utf-8")
    return load_index(out)


def index_bytes(engine: Engine, num_images: int) -> int:
    """Bytes of an index on disk, per image: tokens in half precision if they are stored, the feature in single."""
    image = blank_encoding(engine)
    return num_images * (4 * image.feature.numel() + (2 * image.tokens.numel() if engine.can_match else 0))


def blank_encoding(engine: Engine) -> Encoding:
    """The encoding of one blank image, for the sizes of all."""
    (encoding,) = engine.image_encodings([np.zeros((8, 8, 3), np.uint8)])
    return encoding


def tokens_written(encodings: Iterable[Encoding], file: Path) -> Iterator[Encoding]:
    """The same encodings, whose tokens are written into a .npy file of float16 [images, places, width] as they pass."""
    rows, shape = 0, torch.Size((0, 0))
    with file.open("wb") as out:
        for encoding in encodings:
            if not rows:  # the header has a fixed length, and is written again when all rows are counted
                shape = encoding.tokens.shape[1:]
                out.write(header(0, shape))
            out.write(encoding.tokens.to(torch.float16).cpu().numpy().tobytes())
            rows += len(encoding.tokens)
            yield encoding
        out.seek(0)
        out.write(header(rows, shape))


def header(rows: int, shape: torch.Size) -> bytes:
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
    if not os.path.isdir(folder):
        what = "is a file, but an index is a folder" if os.path.exists(folder) else "no such folder"
        raise UserError(f"{folder}: {what}. Name the folder of an index, or make one with albef index.")
    for name in (FACTS_FILE, FEATURES_FILE):
        if not os.path.isfile(folder / name):
            raise UserError(f"{folder}: has no {name}, so it is no index. Make one with albef index.")
    try:
        if (folder / MANIFEST_FILE).is_file():  # tokens may be gigabytes, so only `albef verify` checks them
            verify(folder, (FACTS_FILE, FEATURES_FILE))
        facts = json.loads((folder / FACTS_FILE).read_text("utf-8"))
        version = facts["format_version"]
        features = np.load(folder / FEATURES_FILE, allow_pickle=False)
        has_tokens = facts.get("has_tokens", True)  # earlier versions stored them always
        paths = tuple(Path(path) for path in facts["paths"])
        if not isinstance(facts["model"], str):
            raise TypeError(f"model is {facts['model']!r}")
        if not isinstance(has_tokens, bool):
            raise TypeError(f"has_tokens is {has_tokens!r}")
        tokens = None
        if has_tokens:
            tokens = np.load(folder / TOKENS_FILE, mmap_mode="r", allow_pickle=False)
        index = Index(folder, facts["model"], facts["weights"], paths, features, tokens, facts["num_skipped"])
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
    fits = features.ndim == 2 and len(paths) == len(features)
    fits = fits and (tokens is None or (tokens.ndim == 3 and len(tokens) == len(paths)))
    if version != FORMAT_VERSION or not fits:
        raise UserError(
            f"{folder}: this index has another format or is damaged. Make it again with albef index."
        )
    return index
