"""Finds the files of a download, and checks their rows."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from albef.config import UserError
from albef.data.json_rows import json_rows, jsonl_rows
from albef.data.rows import kind, require_key
from albef.errors import reading

DEPTH = 3  # folders below the given one that are searched; downloads are rarely nested deeper

# A row of the published JSON, and its place in the download.
Row = tuple[str, dict[str, Any]]


def search(source: Path, *names: str) -> Path | None:
    """The nearest file or folder below `source` with one of these names. None if there is none.

    A name may include folders, such as "refcoco+/refs(unc).p". An absolute name is never found.
    """
    for folder in _folders(source):
        for name in names:
            if not os.path.isabs(name) and os.path.exists(folder / name):
                return folder / name
    return None


def find(source: Path, *names: str, origin: str) -> Path:
    """Like `search`, but raises `UserError` if nothing is found, and names the download that it belongs to."""
    found = search(source, *names)
    if found is None:
        raise UserError(
            f"{source}: {' or '.join(names)} is neither here nor up to {DEPTH} folders below; "
            f"it is part of {origin}."
        )
    return found


def _folders(source: Path) -> Iterator[Path]:
    """The folder and those below it, nearest first. Folders with numbers as names are skipped."""
    level = [source]
    for _ in range(DEPTH + 1):
        yield from level
        level = [
            below
            for folder in level
            for below in sorted(folder.iterdir())
            if below.is_dir() and not below.name.isdigit() and not below.name.startswith(".")
        ]


def objects(path: Path, key: str = "") -> Iterator[Row]:
    """The objects of a .jsonl file or of a JSON list (under `key`, if given), each with its place."""
    reading.set(path)
    for place, row in jsonl_rows(path) if not key and path.suffix == ".jsonl" else json_rows(path, key):
        yield f"{path}, {place}", object_in(row, f"{path}, {place}")


def texts(path: Path, key: str) -> Iterator[tuple[str, str]]:
    """The texts of the list under a key, each with its place."""
    for place, text in json_rows(path, key):
        if not isinstance(text, str):
            raise UserError(f"{path}, {place}: must be a text, found {kind(text)}.")
        yield f"{path}, {place}", text


def object_in(value: object, where: str) -> dict[str, Any]:
    """The value, which must be an object."""
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected an object with keys and values, found {kind(value)}.")
    return value


def objects_at(row: dict[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    """The list of objects under a key."""
    require_key(row, key, where)
    if not isinstance(row[key], list):
        raise UserError(f'{where}: "{key}" must be a list, found {kind(row[key])}.')
    return [object_in(value, f'{where}, "{key}"') for value in row[key]]


def number_at(row: dict[str, Any], key: str, where: str) -> int:
    """The whole number under a key."""
    require_key(row, key, where)
    if not isinstance(row[key], int) or isinstance(row[key], bool):
        raise UserError(f'{where}: "{key}" must be a whole number, found {kind(row[key])}.')
    return int(row[key])
