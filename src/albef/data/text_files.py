"""Reads UTF-8 text files, and says what a file is if it is not one."""

from __future__ import annotations

from pathlib import Path

from albef.errors import UserError, printable
from albef.manifest import plain

LONGEST_QUOTED = 60  # characters of a file's content in messages
# First bytes of files that are given by mistake instead of a text.
OTHER_FILES = {
    b"\x1f\x8b": "compressed (gzip): unpack it",
    b"\x28\xb5\x2f\xfd": "compressed (zstd): unpack it",
    b"BZh": "compressed (bzip2): unpack it",
    b"\xfd7zXZ": "compressed (xz): unpack it",
    b"PK\x03\x04": "a ZIP archive, as workbooks are: unpack it, or save the sheet as CSV (UTF-8)",
    b"PAR1": "a Parquet file: write its rows as JSON, JSONL or CSV",
    b"\xff\xfe": "UTF-16 text: save it as UTF-8",
    b"\xfe\xff": "UTF-16 text: save it as UTF-8",
}


def not_utf8(path: Path) -> UserError:
    """The error for a file that cannot be decoded: what it is, or the first line that is not UTF-8."""
    with path.open("rb") as file:
        head = file.read(8)
        for beginning, what in OTHER_FILES.items():
            if head.startswith(beginning):
                return UserError(f"{path}: is {what}.")
        file.seek(0)
        for number, line in enumerate(file, start=1):
            try:
                line.decode()
            except UnicodeDecodeError as error:
                return UserError(
                    f"{path}, line {number}: not UTF-8 text ({error.reason}); save the file as UTF-8."
                )
    return UserError(f"{path}: not UTF-8 text; save it as UTF-8.")


def unusable(path: Path, place: str, error: Exception) -> UserError:
    """The error for content that a parser cannot describe, such as a number with thousands of digits."""
    if isinstance(error, OSError):
        return UserError(f"{path}: cannot be read ({error.strerror}).")
    return UserError(f"{path}, {place}: cannot be read ({plain(error).partition(':')[0]}); correct it.")


def quoted(text: object) -> str:
    """The beginning of a text, quoted, on one line, with invisible characters as escapes."""
    return f'"{printable(str(text)[:LONGEST_QUOTED])}"'
