"""The rows of CSV and TSV tables. A table with a line that fits no row is refused."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from albef.config import UserError
from albef.data.formats import SUFFIXES
from albef.data.rows import require_key
from albef.data.text_files import not_utf8, quoted, unusable

SEPARATORS = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
OWN = {".csv": ",", ".tsv": "\t"}


def csv_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[str, object]]:
    """The place of each row, and its fields by the names in the header. The header must have the `required` names.

    The separator is found from the header. In a CSV, a field in quotation marks may span several lines. In a TSV, a
    row is a line. Raises `UserError` for a row that does not have as many fields as the header.
    """
    place = "line 0"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            number = 1
            while header and not header.strip():
                header = file.readline()
                number += 1
            separator = separator_of(header, path, required)
            names = check_names(fields_of(header, separator), separator, path, required)
            rows = tsv_lines(file, number) if separator == "\t" else csv_lines(file, path, number, separator)
            for place, fields in rows:
                if not any(fields):
                    continue
                if len(fields) != len(names):
                    raise UserError(
                        f"{path}, {place}: not as many fields as the header has ({len(fields)}, not {len(names)}); "
                        f"{advice(separator)}"
                    )
                if fields == names:
                    raise UserError(
                        f"{path}, {place}: the header is repeated here, as if tables were joined. Remove this line."
                    )
                yield place, dict(zip(names, fields, strict=True))
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except UserError:
        raise
    except Exception as error:  # a broken table may raise anything
        raise unusable(path, f"after {place}", error) from None


def separator_of(header: str, path: Path, required: Sequence[str]) -> str:
    """The separator: by the file's ending, else the one that gives a header with the required names.

    If none does, the one that gives the most names, so that the error message makes sense.
    """
    own = OWN[path.suffix.lower()]
    found = {separator: fields_of(header, separator) for separator in dict.fromkeys((own, *SEPARATORS))}
    for separator, names in found.items():
        if all(name in names for name in required):
            return separator
    return own if len(found[own]) > 1 else max(found, key=lambda separator: len(found[separator]))


def fields_of(header: str, separator: str) -> list[str]:
    """The names in a header."""
    return next(csv.reader([header], delimiter=separator), [])


def check_names(names: list[str], separator: str, path: Path, required: Sequence[str]) -> list[str]:
    """The names, if all required ones are there and none comes twice."""
    for name in required if names else ():
        where = (
            f"{path}, header"
            if separator == OWN[path.suffix.lower()]
            else f"{path}, header of {SEPARATORS[separator]}"
        )
        require_key(names, name, where)
    for name in filter(None, names):
        if names.count(name) > 1:
            raise UserError(f"{path}, header: two columns are called {quoted(name)}. Rename or remove one.")
    return names


def advice(separator: str) -> str:
    """What to do about a row with fewer or more fields than the header."""
    if separator == "\t":
        return "a field of a TSV can hold neither a tab nor a new line: write a space there."
    return "put captions that contain the separator in double quotes."


def tsv_lines(file: TextIO, number: int) -> Iterator[tuple[str, list[str]]]:
    """The fields of each line after `number`. Quotation marks only count if they surround a whole field."""
    for place, line in enumerate(file, start=number + 1):
        fields = line.rstrip("\r\n").split("\t")
        if '"' in line:
            fields = [unquoted(field) for field in fields]
        yield f"line {place}", fields


def unquoted(field: str) -> str:
    """A field without its surrounding quotation marks. Doubled marks inside become single ones."""
    within = field[1:-1]
    if len(field) < 2 or field[0] != '"' or field[-1] != '"' or '"' in within.replace('""', ""):
        return field
    return within.replace('""', '"')


def csv_lines(file: TextIO, path: Path, number: int, separator: str) -> Iterator[tuple[str, list[str]]]:
    """The fields of each row after line `number`, and the lines that it takes."""
    reader = csv.reader(file, delimiter=separator, strict=True)
    endings = "|".join(re.escape(suffix) for suffix in sorted(SUFFIXES))
    another_row = re.compile(
        rf"[\r\n].*(?:{endings})(?:{re.escape(separator)}|\s*[\r\n]|\s*$)", re.IGNORECASE
    )
    while True:
        first = number + reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UserError(
                f"{path}, line {first}: a field that begins with a quotation mark there does not end as it should "
                f"({error}); close it, or write the mark twice in a field with marks round it."
            ) from None
        last = number + reader.line_num
        if last > first and any(another_row.search(field) for field in fields):
            raise UserError(
                f"{path}, line {first}: a field that begins with a quotation mark there ends in line {last} only, and "
                f"other rows are in it; close it, or write the mark twice in a field with marks round it."
            )
        yield f"lines {first} to {last}" if last > first else f"line {first}", fields
