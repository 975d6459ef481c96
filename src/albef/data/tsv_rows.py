"""Rows of large TSV files: where each begins, by its first column, so that a single row can be read."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Shaped

from albef.data.images import BadImage
from albef.errors import UserError
from albef.manifest import plain

LARGEST_INDEX = 2**28  # bytes of a .lineidx or a list of ids; COCO's take 2 MB
LONGEST_NAME = 1000  # bytes of a first column
SHOWING = 10  # rows that show what a file holds
LONGEST_ROW = 2**26  # bytes; 100 regions take 1.1 MB. Another file may be one row of any length


def row_offsets(file: Path) -> dict[str, int]:
    """Where the row of each image begins, in bytes, by its first column. Reads the whole file once.

    Raises `UserError` for a file that cannot be read, has no rows, or has rows longer than regions can be.
    """
    offsets: dict[str, int] = {}
    try:
        with file.open("rb") as rows:
            begin = 0
            while row := rows.readline(LONGEST_ROW):
                if len(row) == LONGEST_ROW:
                    raise UserError(
                        f"{file}: the row after {len(offsets):,} others is longer than {LONGEST_ROW:,} bytes, more than "
                        f"the regions of one image can be."
                    )
                name = row[: max(row.find(b"\t"), 0)]
                if name:
                    offsets[text_of(name)] = begin
                begin += len(row)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({plain(error)}).") from None
    if not offsets:
        raise UserError(f"{file}: has no rows; get it again.")
    return offsets


def indexed_offsets(file: Path, ids: Path | None = None) -> dict[str, int]:
    """As `row_offsets`, from the `.lineidx` beside the file if it is there, which saves reading the file.

    `ids` is a JSON file with the number of each image's row. Without it the rows' beginnings are read. Raises
    `UserError` for an index that does not fit the file.
    """
    index = file.with_suffix(".lineidx")
    if not index.is_file():
        return row_offsets(file)
    offsets = line_offsets(index, file)
    if ids is not None and ids.is_file():
        return {name: offsets[number] for name, number in row_numbers(ids, len(offsets), file).items()}
    try:
        with file.open("rb", buffering=LONGEST_NAME) as rows:
            return {first_column(rows, offset): offset for offset in offsets}
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({plain(error)}).") from None


def line_offsets(index: Path, file: Path) -> list[int]:
    """The offsets in a `.lineidx`: one a line, in bytes. Checked against the file at its beginning and at its end."""
    try:
        if index.stat().st_size > LARGEST_INDEX:
            raise ValueError(f"more than {LARGEST_INDEX:,} bytes")
        offsets = [int(line) for line in index.read_bytes().split()]
        size = file.stat().st_size
        ascending = all(first < second for first, second in pairwise(offsets))
        if not offsets or offsets[0] != 0 or not ascending or offsets[-1] >= size:
            raise ValueError("its numbers are no beginnings of rows")
        with file.open("rb") as rows:
            rows.seek(max(offsets[-1] - 1, 0))
            before = rows.read(1) if offsets[-1] else b"\n"
            rows.readline(LONGEST_ROW)
            if before != b"\n" or rows.tell() != size:
                raise ValueError("its last number is not where the last row begins")
    except (OSError, ValueError) as error:
        raise UserError(
            f"{index}: does not fit {file.name} beside it ({plain(error)}); get both again, or remove it, so that all "
            f"rows are read once."
        ) from None
    return offsets


def row_numbers(ids: Path, count: int, file: Path) -> dict[str, int]:
    """The number of each image's row, from a JSON file such as `imageid2idx.json`."""
    try:
        if ids.stat().st_size > LARGEST_INDEX:
            raise ValueError(f"more than {LARGEST_INDEX:,} bytes")
        numbers = json.loads(ids.read_bytes())
        if not isinstance(numbers, dict):
            raise ValueError("it must be an object with a number for each image")
        if not all(type(number) is int and 0 <= number < count for number in numbers.values()):
            raise ValueError(f"a number is none of the {count:,} rows")
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(
            f"{ids}: does not fit {file.name} beside it ({plain(error)}); get both again, or remove it."
        ) from None
    return numbers


def first_column(rows: BinaryIO, offset: int) -> str:
    """What the first column of a row says."""
    rows.seek(offset)
    return text_of(rows.read(LONGEST_NAME).partition(b"\t")[0])


def row_at(file: Path, offset: int) -> bytes:
    """The row that begins at this byte, without its end. The file is opened anew, so that processes share nothing.

    Raises `BadImage` if it cannot be read.
    """
    try:
        with file.open("rb") as rows:
            rows.seek(offset)
            return rows.readline(LONGEST_ROW).rstrip(b"\r\n")
    except (OSError, ValueError) as error:
        raise BadImage(f"{file}: cannot be read ({plain(error)}).") from None


def first_rows(file: Path) -> Iterator[list[bytes]]:
    """The fields of the first rows of a file, as many as show what it holds."""
    try:
        with file.open("rb") as rows:
            for _ in range(SHOWING):
                yield rows.readline(LONGEST_ROW).rstrip(b"\r\n").split(b"\t")
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({plain(error)}).") from None


def text_of(field: bytes) -> str:
    """A field as text, without spaces around it."""
    return field.decode("utf-8", "replace").strip()


def base64_numbers(field: bytes | str, kind: str, name: str, place: str) -> Shaped[np.ndarray, " numbers"]:
    """The numbers of a base64 field. Raises `BadImage` for anything else; `place` says where the field `name` stands."""
    try:
        return np.frombuffer(base64.b64decode(field, validate=True), kind)
    except ValueError:  # binascii's too
        raise BadImage(
            f"{place}: {name} is not an array in base64; the file is damaged, get it again."
        ) from None
