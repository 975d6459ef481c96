"""Every setting of a recipe with its type, default and meaning, read from `config.py` and `model_config.py`."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
from typing import Any, NamedTuple

from albef import config, model_config
from albef.config import Config
from albef.setting_checks import described, hints


class Setting(NamedTuple):
    """A setting as help shows it."""

    name: str
    kind: str  # type, in words
    default: object
    meaning: str


def settings() -> dict[str, list[Setting]]:
    """The settings of each section, in the order of the source."""
    said: dict[str, dict[str, str]] = {}
    for source in map(inspect.getsource, (config, model_config)):
        lines = source.splitlines()
        classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
        said |= {node.name: meanings(node, lines) for node in classes}
    found = {}
    for section, kind in hints(Config).items():
        defaults, kinds = dataclasses.asdict(kind()), hints(kind)
        found[section] = [
            Setting(name, described(kinds[name]), defaults[name], meaning)
            for name, meaning in said[kind.__name__].items()
        ]
    return found


def meanings(section: ast.ClassDef, lines: list[str]) -> dict[str, str]:
    """The comment of each field of a section, from the lines above and beside it."""
    found = {}
    for node in section.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            first = node.lineno - 1
            while lines[first - 1].lstrip().startswith("#"):
                first -= 1
            above = [line.lstrip(" #") for line in lines[first : node.lineno - 1]]
            beside = lines[node.end_lineno - 1][node.end_col_offset :].partition("#")[2].strip()  # type: ignore[operator]
            found[node.target.id] = " ".join([*above, beside]).strip()
    return found


def short_kind(kind: str) -> str:
    """A type in few words: "whole number", or the values to choose from."""
    return re.sub("^(a |one of )|finite ", "", kind)


def shown(value: Any) -> str:
    """A default as the user would type it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return '""' if value == "" else str(value)
