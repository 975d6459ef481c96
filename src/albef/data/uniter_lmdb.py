"""Regions of images from UNITER's databases: an LMDB folder with one record for each image, in half precision."""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from albef.data.images import BadImage
from albef.data.regions import LARGEST_BYTES, ImageRegions, checked, read_arrays, regions_of
from albef.errors import UserError
from albef.manifest import plain

ARRAYS = {"features": "features", "conf": "object_confidences", "soft_labels": "classes"}  # and norm_bb
KINDS = ("<f2", "<f4")  # of numbers. An array of objects, which would be a pickle, is none
NUMBERED = ("flickr30k", "vg", "gqa")  # sets whose images are numbers, of 12 digits in keys
LZ4_FRAME = b"\x04\x22\x4d\x18"  # first bytes
LONGEST_KEY = 511  # bytes, of LMDB
MOST_ITEMS = 100  # of a list or a map in a record: a genuine one has 5
LARGEST_JSON = 2**28  # bytes; COCO's takes 5 MB

_opening = threading.Lock()  # LMDB must not open a database twice in a process


class UniterLmdb:
    """A database of regions. Images are found by their published names, such as `coco_val2014_000000000042.npz`.

    Raises `UserError` for a folder that is no such database, or without the packages of the extra.
    """

    def __init__(self, file: Path) -> None:
        self.file = file.parent  # of data.mdb
        if (self.file / "txt2img.json").exists():
            raise UserError(f"{self.file}: is UNITER's database of texts; name the one of regions.")
        if environment(self.file).stat()["entries"] == 0:
            raise UserError(f"{self.file}: this database is empty; get it again.")
        self.counts = region_counts(self.file)

    def key(self, image: Path) -> str | None:
        """What the database calls an image. None if it is not there."""
        with environment(self.file).begin(buffers=True) as records:
            return next((key for key in keys_of(image.stem) if records.get(encoded(key)) is not None), None)

    def read(self, key: str) -> ImageRegions:
        """The regions in a record. Raises `BadImage` if it does not hold what it should."""
        place = f"{self.file}, {key}"
        with environment(self.file).begin(buffers=True) as records:
            arrays = unpacked(records.get(encoded(key)), place)
        count = self.counts.get(key)
        if count is not None:
            arrays = {name: array[:count] for name, array in arrays.items()}
        found = regions_in(arrays, place)
        if count is not None and len(found) != count:
            raise BadImage(
                f"{place}: has {len(found)} regions, but the nbb file beside the database says {count}; get both again."
            )
        return found


def keys_of(stem: str) -> Iterator[str]:
    """The keys that an image with this name may have, in UNITER's published databases or in one's own."""
    names = [stem, stem.lower(), f"nlvr2_{stem}"]
    if stem.isascii() and stem.isdigit():
        names += [f"{name}_{stem:0>12}" for name in NUMBERED]
    return (f"{name}.npz" for name in names if len(encoded(name)) < LONGEST_KEY - 4)


def encoded(key: str) -> bytes:
    """A key as LMDB takes it."""
    return key.encode("utf-8", "surrogatepass")


def environment(folder: Path) -> Any:
    """The opened database, one for each folder and process."""
    with _opening:
        return opened(folder.absolute())  # the current folder may change


@functools.cache
def opened(folder: Path) -> Any:
    """A database opened for reading, without a lock file. Raises `UserError` if it is none, or cut short."""
    try:
        import lmdb  # of an extra, as the others
        import lz4.frame  # noqa: F401 - so that it is missed before any record is read
        import msgpack  # noqa: F401
    except ImportError:
        raise UserError(
            f"{folder}: UNITER's databases need the packages lmdb, lz4 and msgpack; install them: pip install "
            f"'albef[regions]'."
        ) from None
    try:
        database = lmdb.open(str(folder), readonly=True, lock=False, readahead=False)
        needed = (database.info()["last_pgno"] + 1) * database.stat()["psize"]
        size = (folder / "data.mdb").stat().st_size
    except (lmdb.Error, OSError) as error:
        raise UserError(f"{folder}: cannot be opened as LMDB ({plain(error)}); get it again.") from None
    if size < needed:  # what is missing must not be read: the system would end the process
        database.close()
        raise UserError(f"{folder}: data.mdb is cut short at {size:,} of {needed:,} bytes; get it again.")
    return database


def region_counts(folder: Path) -> dict[str, int]:
    """How many of the first regions of each image count: `nbb_….json` beside a database `feat_…`. Empty without one."""
    name = folder.name.removesuffix("_compressed").removeprefix("feat_")
    file = folder.parent / f"nbb_{name}.json"
    if not file.is_file():
        return {}
    try:
        if file.stat().st_size > LARGEST_JSON:
            raise ValueError(f"more than {LARGEST_JSON:,} bytes")
        counts = json.loads(file.read_bytes())
        if not isinstance(counts, dict) or not all(type(n) is int and n > 0 for n in counts.values()):
            raise ValueError("it must be an object of numbers above 0")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{file}: cannot be read as numbers of regions ({plain(error)}); get it again."
        ) from None
    return counts


def unpacked(record: memoryview | None, place: str) -> dict[str, np.ndarray]:
    """The arrays of a record: msgpack, which may be compressed, or an .npz. Nothing in it is run."""
    import msgpack

    if record is None or not 0 < len(record) <= LARGEST_BYTES:
        raise BadImage(
            f"{place}: the record has {len(record or b''):,} bytes; regions take 1 to {LARGEST_BYTES:,}."
        )
    if bytes(record[:4]) == LZ4_FRAME:
        record = decompressed(record, place)
    if bytes(record[:2]) == b"PK":
        return read_arrays(io.BytesIO(record), place)
    try:
        found = msgpack.unpackb(
            record, strict_map_key=False, max_array_len=MOST_ITEMS, max_map_len=MOST_ITEMS, max_ext_len=0
        )
    except Exception as error:  # of several kinds, some of Python itself
        raise BadImage(
            f"{place}: the record cannot be read as msgpack ({plain(error)}); get it again."
        ) from None
    if not isinstance(found, dict):
        raise BadImage(
            f"{place}: the record holds no map of arrays, but {type(found).__name__}; get it again."
        )
    return {name: array_of(found[name], name, place) for name in ("norm_bb", *ARRAYS) if name in found}


def decompressed(record: memoryview, place: str) -> memoryview:
    """The content of an LZ4 frame, as UNITER's class for texts writes records. It is bounded while it grows."""
    import lz4.frame

    frame = lz4.frame.LZ4FrameDecompressor()
    try:
        content = frame.decompress(record, max_length=LARGEST_BYTES)
    except Exception as error:
        raise BadImage(
            f"{place}: the record cannot be decompressed ({plain(error)}); get it again."
        ) from None
    if not frame.eof:
        raise BadImage(
            f"{place}: the compressed record is cut short, or holds more than {LARGEST_BYTES:,} bytes; get it again."
        )
    return memoryview(content)


def array_of(found: object, name: str, place: str) -> Shaped[np.ndarray, "regions numbers"]:
    """An array as msgpack-numpy writes it: a map of its kind, its shape and its bytes."""
    fields = found if isinstance(found, dict) else {}
    named: dict[Any, Any] = {text_of(key): value for key, value in fields.items()}
    kind, shape = text_of(named.get("type")), shape_of(named.get("shape"))
    data = named["data"] if isinstance(named.get("data"), bytes) else b""
    if (
        kind in KINDS
        and not named.get("kind")
        and len(data) == math.prod(shape) * np.dtype(kind).itemsize > 0
    ):
        return np.frombuffer(data, kind).reshape(shape)
    raise BadImage(f"{place}: {name} is not an array of numbers, regions × width; get the database again.")


def text_of(found: Any) -> Any:
    """A text as text, where older writers put bytes. Anything else as it is."""
    return found.decode("ascii", "replace") if isinstance(found, bytes) else found


def shape_of(found: Any) -> tuple[int, int]:
    """The shape of a table. (0, 0) for anything else."""
    fits = (
        isinstance(found, list) and len(found) == 2 and all(type(side) is int and side > 0 for side in found)
    )
    return (found[0], found[1]) if fits else (0, 0)


def regions_in(arrays: dict[str, np.ndarray], place: str) -> ImageRegions:
    """The regions in UNITER's arrays. The area of a box is computed while reading, in single precision, as published."""
    if "norm_bb" not in arrays:
        raise BadImage(f"{place}: has no array norm_bb, the boxes of regions; get the database again.")
    boxes = checked(arrays["norm_bb"], (len(arrays["norm_bb"]), 6), "norm_bb", place).astype(np.float32)
    named = {ours: arrays[name] for name, ours in ARRAYS.items() if name in arrays}
    if "object_confidences" in named:
        named["object_confidences"] = named["object_confidences"].reshape(-1)
    regions = regions_of({**named, "boxes": boxes[:, :4]}, place)
    if not np.isfinite(boxes).all():
        raise BadImage(f"{place}: norm_bb holds a number that is not finite; get the database again.")
    return dataclasses.replace(regions, boxes=np.concatenate([boxes, boxes[:, 4:5] * boxes[:, 5:]], 1))
