"""Regions of many images in Parquet files. An image is found by its file's name, or by its pixels if it has no file."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from jaxtyping import Bool, Int

from albef.data.images import BadImage
from albef.data.regions import ImageRegions, check_width, regions_of
from albef.errors import UserError
from albef.manifest import plain
from albef.writing import whole_file

# A row is an image. The arrays of its regions stand in it flat, one region after the other.
SCHEMA = pa.schema(
    [
        ("image", pa.string()),  # name of its file without the ending, or `pixels_id`
        ("features", pa.list_(pa.float16())),
        ("boxes", pa.list_(pa.float32())),
        ("object_ids", pa.list_(pa.int32())),
        ("object_confidences", pa.list_(pa.float16())),
        ("attribute_ids", pa.list_(pa.int32())),
        ("attribute_confidences", pa.list_(pa.float16())),
        ("classes", pa.list_(pa.float16())),
        ("tags", pa.list_(pa.string())),
    ]
)
ARRAYS = tuple(name for name in SCHEMA.names if name not in ("image", "tags"))
FACTS = b"albef"  # key of the file's metadata
MADE_WITH = ("detector", "detector_seed", "classifier")  # facts that files of one folder share
KEPT_GROUPS = 4  # decoded parts of files; training goes through them in order
FOREIGN = (pa.ArrowException, OSError, ValueError)


def pixels_id(image: np.ndarray) -> str:
    """The name of an image without a file: a hash of its shape and its pixels, 16 hexadecimal digits."""
    hasher = xxhash.xxh3_64(repr(image.shape).encode())
    hasher.update(np.ascontiguousarray(image).data)
    return str(hasher.hexdigest())


class RegionTable:
    """Regions from a Parquet file, or from all Parquet files of a folder.

    Only the images' names are held in memory. The rest is read a row group at a time. An image may have several rows if
    their boxes are equal. Raises `UserError` for a file that holds no regions, and for files of different detectors.
    """

    def __init__(self, place: Path, width: int) -> None:
        self.place, self.width = place, width  # width of features
        self._files = [opened(file) for file in parquet_files(place)]
        check_same(self._files[1:], self._files[0].facts)
        names = np.concatenate([names_in(file) for file in self._files])
        self._rows = np.argsort(names, kind="stable")
        self._names = names[self._rows]
        self._groups = [
            (file, number) for file in self._files for number in range(file.metadata.num_row_groups)
        ]
        sizes = [file.metadata.row_group(number).num_rows for file, number in self._groups]
        self._starts = np.cumsum([0, *sizes])
        self._group = functools.lru_cache(KEPT_GROUPS)(self._read)

    def __reduce__(self) -> tuple[Any, ...]:
        return RegionTable, (self.place, self.width)  # data workers open the files themselves

    def __len__(self) -> int:
        return len(self._names)

    def has(self, image: Path) -> bool:
        """Whether a row has the image's name."""
        wanted = hashed(image.stem)
        at = int(np.searchsorted(self._names, wanted))
        return at < len(self._names) and bool(self._names[at] == wanted)

    def of(self, image: Path | np.ndarray) -> ImageRegions:
        """The regions of an image. Raises `BadImage` if there are none or if they are broken."""
        name = pixels_id(image) if isinstance(image, np.ndarray) else image.stem
        start, end = (int(np.searchsorted(self._names, hashed(name), side)) for side in ("left", "right"))
        if start == end:
            raise missing(image, name, self.place)
        found, *others = (self._at(int(row), name) for row in self._rows[start:end])
        for other in others:
            if sorted(other.boxes.tolist()) != sorted(found.boxes.tolist()):
                raise BadImage(
                    f"{name}: has different regions in two rows of {self.place}; keep one of them."
                )
        return found

    def _at(self, row: int, name: str) -> ImageRegions:
        group = int(np.searchsorted(self._starts, row, "right")) - 1
        place = f"{self._groups[group][0].path}, image {name}"
        found = regions_of(self._group(group).arrays(row - int(self._starts[group])), place)
        check_width(found, self.width, place)
        return found

    def _read(self, group: int) -> Group:
        file, number = self._groups[group]
        try:
            with pq.ParquetFile(
                file.path, metadata=file.metadata, page_checksum_verification=True
            ) as opened_file:
                table = opened_file.read_row_group(number, columns=file.columns)
            return Group({name: flat(table[name].combine_chunks()) for name in file.columns})
        except FOREIGN as error:
            raise unreadable(file.path, error) from None


class Flat(NamedTuple):
    """A column of lists: where each row's values begin, all values, and which rows have a list, empty or not."""

    starts: Int[np.ndarray, " rows_and_end"]
    values: np.ndarray
    given: Bool[np.ndarray, " rows"]

    def row(self, number: int) -> np.ndarray:
        """The values of a row."""
        return self.values[self.starts[number] : self.starts[number + 1]]


class Group(NamedTuple):
    """A decoded row group."""

    columns: dict[str, Flat]

    def arrays(self, row: int) -> dict[str, np.ndarray]:
        """The arrays of an image, as an .npz has them. What is empty is left out, but for tags: there may be none."""
        found = {name: column.row(row) for name, column in self.columns.items()}
        boxes = found["boxes"]
        count = len(boxes) // 4
        if len(boxes) == 4 * count:
            found["boxes"] = boxes.reshape(-1, 4)
        for name in {"features", "classes"} & found.keys():
            if count and len(found[name]) % count == 0:
                found[name] = found[name].reshape(count, -1)
        kept = {"features", "boxes"} | {name for name, array in found.items() if len(array)}
        kept |= {name for name in ("tags",) if name in found and self.columns[name].given[row]}
        return {name: array for name, array in found.items() if name in kept}


class OpenedFile(NamedTuple):
    """A Parquet file of regions."""

    path: Path
    metadata: pq.FileMetaData
    columns: list[str]  # those that it has, without the images' names
    facts: dict[str, Any]  # how it was made, if it says so


def parquet_files(place: Path) -> list[Path]:
    """The Parquet files that a path names: itself, or those in the folder."""
    return sorted(place.glob("*.parquet")) if place.is_dir() else [place] * (place.suffix == ".parquet")


def opened(path: Path) -> OpenedFile:
    """A file's description. Raises `UserError` for a file that holds no regions."""
    try:
        with pq.ParquetFile(path) as file:
            schema, metadata = file.schema_arrow, file.metadata
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; name the Parquet file of regions.") from None
    except FOREIGN as error:
        raise unreadable(path, error) from None
    present = [field.name for field in schema if not pa.types.is_null(field.type)]
    for name in ("image", "features", "boxes"):
        if name not in present:
            raise UserError(
                f"{path}: has no column {name}; a Parquet file of regions has image, features and boxes (docs/data.md)."
            )
    columns = [name for name in SCHEMA.names if name in present]
    for name in columns:
        check_kind(schema.field(name).type, name, path)
    return OpenedFile(path, metadata, columns[1:], facts_of(metadata))


def check_kind(kind: pa.DataType, name: str, path: Path) -> None:
    """Raises `UserError` for a column that does not hold what its name says."""
    found, depth = kind, 0
    while is_list(found):
        found, depth = found.value_type, depth + 1
    texts = name in ("image", "tags")
    right = is_text(found) if texts else is_number(found)
    right = right or (depth > 0 and pa.types.is_null(found))  # of lists that are all empty
    if not right or (depth > 0) is (name == "image"):
        wanted = "a text" if name == "image" else "a list of texts" if texts else "a list of numbers"
        raise UserError(f"{path}: column {name} holds {kind}, but it must be {wanted} for each image.")


def is_list(kind: pa.DataType) -> bool:
    """Whether values of this type are lists."""
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def is_number(kind: pa.DataType) -> bool:
    """Whether values of this type are numbers."""
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether values of this type are texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def facts_of(metadata: pq.FileMetaData) -> dict[str, Any]:
    """How a file says that it was made. Empty for files of others."""
    try:
        found = json.loads((metadata.metadata or {}).get(FACTS, b"{}"))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def check_same(files: Sequence[OpenedFile], facts: Mapping[str, Any]) -> None:
    """Raises `UserError` for a file that was made with another detector than these facts say."""
    for file in files:
        if any(file.facts.get(name) != facts.get(name) for name in MADE_WITH):
            raise UserError(
                f"{file.path}: was made with another detector than the other regions in its folder; keep them in "
                f"different folders."
            )


def names_in(file: OpenedFile) -> Int[np.ndarray, " images"]:
    """The hashed names of a file's images."""
    try:
        names = pq.read_table(file.path, columns=["image"], partitioning=None)["image"].to_pylist()
    except FOREIGN as error:
        raise unreadable(file.path, error) from None
    if None in names:
        raise UserError(f"{file.path}: row {names.index(None)} has no image; name it in column image.")
    return np.array([hashed(name) for name in names], np.uint64)


def hashed(name: str) -> np.uint64:
    """A name as a number."""
    return np.uint64(xxhash.xxh3_64_intdigest(name.encode("utf-8", "surrogatepass")))


def flat(column: pa.Array) -> Flat:
    """A column of lists, or of lists of lists, with its values one after the other."""
    starts, given = np.arange(len(column) + 1), column.is_valid().to_numpy(zero_copy_only=False)
    while is_list(column.type):
        if pa.types.is_fixed_size_list(column.type):
            size = column.type.list_size
            inner = (np.arange(len(column) + 1) + column.offset) * size
        else:
            inner = column.offsets.to_numpy()
        starts, column = inner[starts], column.values
    return Flat(starts, column.to_numpy(zero_copy_only=False), given)


def missing(image: Path | np.ndarray, name: str, place: Path) -> BadImage:
    """The error for an image without regions."""
    if isinstance(image, np.ndarray):
        return BadImage(
            f"a generated image ({name}): has no regions in {place}; make them with scripts/regions.py, this run's "
            f"recipe, settings and seeds."
        )
    return BadImage(f"{image}: has no regions in {place}: no row has {name!r} in column image; add one.")


def unreadable(path: Path, error: Exception) -> UserError:
    """The error for a file that is no Parquet file, or is damaged."""
    return UserError(f"{path}: cannot be read as Parquet ({plain(error)}); make it again.")


Add = Callable[[Sequence[str], Sequence[int], Mapping[str, np.ndarray], Sequence[Sequence[str]]], None]


@contextmanager
def written_table(path: Path, facts: Mapping[str, Any]) -> Iterator[Add]:
    """A function that adds images to a new Parquet file. The file is there when the block ends without error.

    Each call writes one row group: names of the images, how many regions each has, the arrays of all their regions (one
    after the other) and the tags of each image. `facts` say how the regions were made; see `MADE_WITH`.
    """
    schema = SCHEMA.with_metadata({FACTS: json.dumps(facts).encode()})
    with (
        whole_file(path) as temporary,
        pq.ParquetWriter(
            temporary, schema, compression="zstd", use_dictionary=["tags"], write_page_checksum=True
        ) as writer,
    ):

        def add(
            names: Sequence[str],
            counts: Sequence[int],
            arrays: Mapping[str, np.ndarray],
            tags: Sequence[Sequence[str] | None],
        ) -> None:
            ends = np.cumsum([0, *counts])
            columns: dict[str, Any] = {"image": list(names), "tags": list(tags)}
            for name in ARRAYS:
                columns[name] = listed(arrays.get(name), ends, schema.field(name).type)
            writer.write_table(pa.table(columns, schema=schema), row_group_size=max(1, len(names)))

        yield add


def listed(array: np.ndarray | None, ends: Int[np.ndarray, " rows_and_end"], kind: pa.ListType) -> pa.Array:
    """The regions of all images as a column with a list for each image. Nulls if there is no such array."""
    if array is None:
        return pa.nulls(len(ends) - 1, kind)
    width = array[0].size if len(array) else 1
    values = pa.array(np.ascontiguousarray(array).reshape(-1).astype(kind.value_type.to_pandas_dtype()))
    return pa.ListArray.from_arrays((ends * width).astype(np.int32), values)
