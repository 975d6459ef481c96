"""Recipes: a YAML file and `--section.key=value` overrides, made into a checked `Config`."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from albef.agreement import OFFICIAL, deviating
from albef.config import LATER, SIZES, Config, ModelConfig, UserError

SECTIONS = {section.name: section.default_factory for section in dataclasses.fields(Config)}


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The run that a recipe describes, with `overrides` such as `--train.steps=100` over it.

    Sizes come from `model.size`, then what the recipe says, then the overrides; what `task.compat` stands for gives way
    to both. Raises `UserError` for a missing file, a key that doesn't exist (with the nearest one that does) and a value
    of the wrong type.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such recipe. Recipes are in the folder `recipes`, or write your own.")
    try:
        recipe = yaml.safe_load(path.read_text("utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not readable as YAML ({plain(str(error))}); correct it.") from error
    check_keys(recipe, str(path))
    settings = {section: dict(keys or {}) for section, keys in recipe.items()}
    for override in overrides:
        section, name, value = split_override(override)
        settings.setdefault(section, {})[name] = value
    later(settings.get("model", {}))
    size = settings.get("model", {}).get("size", "base")
    if size not in list(SIZES):  # which may be compared with anything
        raise UserError(f"model.size {size!r} is unknown: choose one of {', '.join(SIZES)}.")
    if settings.get("task", {}).get("compat") == "official":
        for key, value in OFFICIAL.items():
            section, name = key.split(".")
            settings.setdefault(section, {}).setdefault(name, value)
    try:
        parser = recipe_parser(size)
        parsed = parser.instantiate(parser.parse_object(settings))
    except ArgumentError as error:
        raise UserError(f"{path}: {plain(str(error))}") from error
    if parsed["task"].compat and deviating(parsed):  # a setting was given by itself
        parsed["task"] = dataclasses.replace(parsed["task"], compat="")
    return Config(**{name: parsed[name] for name in SECTIONS})


def later(model: dict[str, Any]) -> None:
    """Adds what the configuration of an older run lacks of the model's settings, as that run was made."""
    others = {field.name for field in dataclasses.fields(ModelConfig)} - LATER.keys()
    if others <= model.keys():
        model |= {name: value for name, value in LATER.items() if name not in model}


def recipe_parser(size: str) -> ArgumentParser:
    """A parser of every setting; the model's defaults are those of a size."""
    parser = ArgumentParser(prog="albef train", exit_on_error=False)
    for name, section in SECTIONS.items():
        assert section is not dataclasses.MISSING
        default = SIZES[size] if name == "model" else section()
        parser.add_argument(f"--{name}", type=type(default), default=default)
    return parser


def split_override(override: str) -> tuple[str, str, Any]:
    """Section, name and value of `--section.name=value`; the value is YAML, as in a recipe."""
    key, equals, value = override.removeprefix("--").partition("=")
    if not override.startswith("--") or not equals:
        raise UserError(
            f"{override!r} is no setting: write it as --section.key=value, such as --train.steps=100."
        )
    check_key(key, "command line")
    section, _, name = key.partition(".")
    if not name:
        raise UserError(f"{override!r} names a whole section: write it as --section.key=value.")
    try:
        return section, name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise UserError(f"{override!r}: the value is not readable as YAML ({plain(str(error))}).") from error


def check_keys(recipe: Any, where: str) -> None:
    """Raises `UserError` for anything that isn't sections of known keys."""
    if not isinstance(recipe, dict) or not all(
        isinstance(section, dict | None) for section in recipe.values()
    ):
        raise UserError(
            f"{where}: a recipe has the sections {', '.join(SECTIONS)}, each with keys and values."
        )
    for section, keys in recipe.items():
        check_key(section, where)
        for key in keys or {}:
            check_key(f"{section}.{key}", where)


def check_key(key: str, where: str) -> None:
    """Raises `UserError`, with the nearest known name, for a key that doesn't exist."""
    known = list(known_keys())
    if key not in known and key not in SECTIONS:
        near = difflib.get_close_matches(str(key), [*known, *SECTIONS], 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"sections are {', '.join(SECTIONS)}."
        raise UserError(f"{where}: unknown setting {key}; {hint}")


def known_keys() -> Iterable[str]:
    """Every `section.key`."""
    for name, section in SECTIONS.items():
        assert section is not dataclasses.MISSING
        yield from (f"{name}.{field.name}" for field in dataclasses.fields(section()))


def plain(message: str) -> str:
    """A parser's message on one line."""
    return " ".join(message.split())


def dump_config(config: Config) -> str:
    """The whole configuration as YAML; `load_recipe` reads it back as it was."""
    sections = {name: to_yaml(dataclasses.asdict(getattr(config, name))) for name in SECTIONS}
    return yaml.safe_dump(sections, sort_keys=False)


def to_yaml(section: dict[str, Any]) -> dict[str, Any]:
    """Tuples as lists, which is what YAML has."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in section.items()}
