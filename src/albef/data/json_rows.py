"""Reads the rows of JSON files one by one, so that a long list is never in memory as Python objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from albef.config import UserError
from albef.data.rows import require_key
from albef.data.text_files import not_utf8, quoted, unusable

_NOT_SPACE = re.compile(r"\S")


def distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object of these keys and values. Refuses duplicate keys, of which the standard decoder keeps the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {quoted(twice)} is there twice")
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=distinct)


def json_rows(path: Path, key: str = "") -> Iterator[tuple[str, object]]:
    """The place and value of each row of a list: the whole file, or the list under `key` of an object.

    Raises `UserError` for anything else, and for broken JSON.
    """
    number = 0
    try:
        text = path.read_text("utf-8-sig")
        position, of = _skip(text, 0), ""
        if key:
            position, of = _value_of(text, position, key, path), f' of "{key}"'
        if text[position : position + 1] != "[":
            if not text[position:]:
                raise UserError(f"{path}: is empty.")
            raise UserError(
                f'{path}: "{key}" is not a list.'
                if key
                else f'{path}: not a list of objects; write [{{"image": "a.jpg", "caption": "…"}}, …], '
                "or call the file .jsonl if it has an object a line."
            )
        position = _skip(text, position + 1)
        end = text[position : position + 1] == "]"
        while not end:
            row, position = _DECODER.raw_decode(text, position)
            number += 1
            yield f"row {number}{of}", row
            position = _skip(text, position)
            end = text[position : position + 1] == "]"
            if not end:
                position = _after(text, position, ",", "a comma or ] is missing")
        rest = _skip(text, position + 1)
        if not key and rest < len(text):
            raise json.JSONDecodeError("more follows after the list", text, rest)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: broken JSON ({error.msg}); correct it.") from None
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except UserError:
        raise
    except Exception as error:  # broken content may raise anything
        raise unusable(path, f"row {number + 1}", error) from None


def jsonl_rows(path: Path) -> Iterator[tuple[str, object]]:
    """The place and value of each line. Empty lines are skipped."""
    number = 0
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    if line.startswith("["):
                        raise UserError(
                            f"{path}, line {number}: a list begins here, but lines of this file are objects; write an "
                            f"object a line, or call a file with one list .json."
                        )
                    yield f"line {number}", _DECODER.decode(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: broken JSON ({error.msg}); correct it.") from None
    except UnicodeDecodeError:
        raise not_utf8(path) from None
    except UserError:
        raise
    except Exception as error:  # broken content may raise anything
        raise unusable(path, f"line {number}", error) from None


def _value_of(text: str, position: int, key: str, path: Path) -> int:
    """The place of the value under a key of the object that begins at `position`."""
    if text[position : position + 1] != "{":
        raise UserError(f'{path}: not an object; expected {{"{key}": [{{…}}, …], …}}.')
    found: list[str] = []
    position = _skip(text, position + 1)
    while text[position : position + 1] == '"':
        name, position = _DECODER.raw_decode(text, position)
        position = _after(text, _skip(text, position), ":", "a colon is missing")
        if name == key:
            return position
        found.append(name)
        _, position = _DECODER.raw_decode(text, position)
        position = _skip(text, position)
        if text[position : position + 1] == "}":
            break
        position = _after(text, position, ",", "a comma or } is missing")
    require_key(found, key, str(path))
    raise json.JSONDecodeError("a key is missing", text, position)


def _after(text: str, position: int, sign: str, problem: str) -> int:
    """The position after a character that must be there."""
    if text[position : position + 1] != sign:
        raise json.JSONDecodeError(problem, text, position)
    return _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    """The position of the next character that is not white space."""
    found = _NOT_SPACE.search(text, position)
    return found.start() if found else len(text)
