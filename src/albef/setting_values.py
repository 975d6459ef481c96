"""Reads the values of settings from YAML by the setting's type, so that a text stays exactly as typed.

YAML alone would read `2024-05-01` as a date, and `12:30` as the number 750.
"""

from __future__ import annotations

from types import UnionType
from typing import Any, Literal, get_args, get_origin

import yaml

STANDARD = "tag:yaml.org,2002:"
TAGS = {
    f"{STANDARD}{name}"
    for name in ("null", "bool", "int", "float", "timestamp", "str", "seq", "map", "merge", "value")
}
BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def typed_value(text: str, kind: Any) -> Any:
    """The value of a setting of this type, from what the user typed."""
    if is_text(kind):
        return text
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    check_tags(node)
    return None if node is None else value_of(node, kind)


def value_of(node: yaml.Node, kind: Any) -> Any:
    """The value of a setting of this type; of another type, a text or an empty list or dict, which checks refuse."""
    origin, inner = get_origin(kind), get_args(kind)
    if isinstance(node, yaml.SequenceNode):
        return tuple(value_of(one, inner[0]) for one in node.value) if origin is tuple else []
    if isinstance(node, yaml.MappingNode):
        return {key.value: value_of(one, inner[1]) for key, one in node.value} if origin is dict else {}
    if is_null(node):
        return "" if is_text(kind) else None
    text = str(node.value)
    if origin is UnionType:
        kind = inner[0]
    if kind is bool:
        return BOOLEANS.get(text.lower(), text)
    if kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            return text
    return text


def is_text(kind: Any) -> bool:
    """Whether the values of this type are texts."""
    return kind is str or get_origin(kind) is Literal


def is_null(node: yaml.Node) -> bool:
    """Whether the value is empty or null."""
    return bool(node.tag == f"{STANDARD}null")


def check_tags(node: yaml.Node | None) -> None:
    """Raises `yaml.YAMLError` for tags, which could turn a value into something else than it looks like."""
    seen: set[int] = set()
    nodes = [node]
    while nodes:
        one = nodes.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        if one.tag not in TAGS:
            raise yaml.YAMLError(f"the tag {one.tag} is not allowed")
        if isinstance(one, yaml.SequenceNode):
            nodes += one.value
        if isinstance(one, yaml.MappingNode):
            nodes += [part for pair in one.value for part in pair]
