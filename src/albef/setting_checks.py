"""Checks the type and the range of a setting's value; the errors say what it must be."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from albef.errors import UserError

Made = TypeVar("Made")
Range = tuple[float, float]  # lowest and highest value
ABOVE_0 = math.ulp(0.0)
BELOW_1 = math.nextafter(1.0, 0.0)

NAMES = {float: "a finite number", int: "a whole number", bool: "true or false", str: "a text"}
MANY = {float: "numbers", int: "whole numbers", str: "texts"}


def check_types(section: str, config: object) -> None:
    """Raises `UserError` for a field of a dataclass whose value is not of the field's type; numbers must be finite.

    `section` is put before the field's name: "train." for `train.steps`.
    """
    for name, kind in hints(type(config)).items():
        value = getattr(config, name)
        if not fits(value, kind):
            raise UserError(f"{section}{name} is {value!r}, but it must be {described(kind)}.")


def check_ranges(section: str, config: object, ranges: Mapping[tuple[str, ...], Range]) -> None:
    """Raises `UserError` for a setting out of its range, or one of its numbers. None is in every range."""
    for names, (least, most) in ranges.items():
        for name in names:
            value = getattr(config, name)
            numbers = value if isinstance(value, tuple) else (value,)
            if not all(number is None or least <= number <= most for number in numbers):
                raise UserError(f"{section}.{name} is {value}, but it must be {bounds(least, most)}.")


def hints(kind: type[Any]) -> dict[str, Any]:
    """The types of a dataclass's fields, by name."""
    found = get_type_hints(kind)
    return {field.name: found[field.name] for field in dataclasses.fields(kind)}


def fits(value: object, kind: Any) -> bool:
    """Whether a value has the type of a setting."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is UnionType:
        return any(fits(value, one) for one in inner)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        kinds = inner[:1] * len(value) if inner[-1] is ... else inner
        return len(value) == len(kinds) and all(map(fits, value, kinds))
    if origin is dict:
        return isinstance(value, dict) and all(
            fits(key, inner[0]) and fits(one, inner[1]) for key, one in value.items()
        )
    if kind is float:  # compared, not converted: a whole number may be too large for a float
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and -sys.float_info.max <= value <= sys.float_info.max  # type: ignore[operator]
    return isinstance(value, kind) and (kind is not int or not isinstance(value, bool))


def described(kind: Any) -> str:
    """A type in words."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Literal:
        return f"one of {', '.join(filter(None, inner))}" + (" or empty" if "" in inner else "")
    if origin is UnionType:
        return " or ".join("null" if one is type(None) else described(one) for one in inner)
    if origin is tuple and inner[-1] is ...:
        many = MANY.get(inner[0], described(inner[0]).removeprefix("one of "))
        return f"a list of {many}"
    if origin is tuple:
        return f"{len(inner)} {MANY[inner[0]]}"
    if origin is dict:
        return f"{MANY[inner[1]]} by name"
    return NAMES.get(kind, f"a {getattr(kind, '__name__', kind)}")


def bounds(least: float, most: float) -> str:
    """A range in words."""
    if most == math.inf:
        return "above 0" if least == ABOVE_0 else f"at least {least}"
    if least == -math.inf:
        return f"at most {most:,}"
    left_out = [end for end, given in ((0, least == ABOVE_0), (1, most == BELOW_1)) if given]
    ends = f"from {0 if 0 in left_out else least} to {1 if 1 in left_out else most}"
    return f"{ends}, but not {left_out[0]}" if left_out else ends


def sized(of_size: Mapping[str, Mapping[str, Any]]) -> Callable[[type[Made]], type[Made]]:
    """A decorator for a dataclass: `size` gives the fields that are not set the values of that size."""

    def decorate(kind: type[Made]) -> type[Made]:
        init = kind.__init__
        signature = inspect.signature(init)

        @functools.wraps(init)
        def with_sizes(*values: Any, **named: Any) -> None:
            given = signature.bind(*values, **named).arguments
            size = given.get("size")
            sizes = of_size.get(size, {}) if isinstance(size, str) else {}
            init(**{**sizes, **given})

        kind.__init__ = with_sizes  # type: ignore[method-assign]
        return kind

    return decorate
