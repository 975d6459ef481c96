"""Rows of large TSV files: where each begins, by its first column, so that a single row can be read."""

from __future__ import annotations

from pathlib import Path

from albef.data.images import BadImage
from albef.errors import UserError
from albef.manifest import plain

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


def num_columns(file: Path) -> int:
    """How many columns the first row of a file has. 0 if it is empty."""
    row = row_at(file, 0)
    return row.count(b"\t") + 1 if row else 0


def text_of(field: bytes) -> str:
    """A field as text, without spaces around it."""
    return field.decode("utf-8", "replace").strip()
