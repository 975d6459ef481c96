"""Recipes: a YAML file with `--section.key=value` overrides becomes a checked `Config`."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from albef.agreement import OFFICIAL, deviating
from albef.config import DISTILLED, LATER, Config, ModelConfig, UserError
from albef.errors import reading
from albef.setting_checks import hints
from albef.setting_values import BOOLEANS, check_tags, is_null, typed_value, value_of

KINDS = {name: hints(section) for name, section in hints(Config).items()}  # types by section and setting
SECTIONS = ", ".join(KINDS)
Settings = dict[str, dict[str, Any]]  # values by section and setting


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The configuration of a recipe, with `overrides` such as `--train.steps=100`.

    Overrides come before the recipe, and the recipe before `model.size` and `task.compat`. Raises `UserError` for a
    missing file, an unknown key (and names the nearest known one), a key that is there twice, and a value of the wrong
    type.
    """
    settings = read_recipe(path)
    for override in overrides:
        section, name, value = split_override(override)
        settings.setdefault(section, {})[name] = value
    later(settings.get("model", {}))
    if "distill" in (task := settings.get("task", {})):
        task["distill"] = distilled(task["distill"])
    if settings.get("task", {}).get("compat") == "official":
        for key, value in OFFICIAL.items():
            section, name = key.split(".")
            settings.setdefault(section, {}).setdefault(name, value)
    parsed = {name: kind(**settings.get(name, {})) for name, kind in hints(Config).items()}
    if parsed["task"].compat and deviating(SimpleNamespace(**parsed)):  # a setting was given by itself
        parsed["task"] = dataclasses.replace(parsed["task"], compat="")
    return Config(**parsed)


def read_recipe(path: Path) -> Settings:
    """The settings in the file. The type of a setting decides how its value is read."""
    reading.set(path)
    if not os.path.isfile(path):
        raise UserError(
            f"{path}: no such recipe. The folder recipes of the project holds some; or write your own."
        )
    try:
        node = yaml.compose(path.read_text("utf-8-sig"), Loader=yaml.SafeLoader)
        check_tags(node)
        return settings_in(node, str(path))
    except UserError:
        raise
    except Exception as error:  # whatever broken content may raise
        raise UserError(f"{path}: is not valid YAML ({plain(str(error))}); correct the file.") from error


def settings_in(node: yaml.Node | None, where: str) -> Settings:
    """The settings of a recipe's sections."""
    found: Settings = {}
    for section, body in entries(node, where):
        check_key(section, where)
        if section in found or section not in KINDS:
            raise UserError(
                f"{where}: a recipe consists of the sections {SECTIONS}, each once and with keys and values."
            )
        found[section] = {}
        for name, value in entries(body, where):
            check_key(f"{section}.{name}", where)
            if name in found[section]:
                raise UserError(f"{where}: {section}.{name} is there twice; remove one.")
            kind = KINDS[section][name]
            if kind is str and not isinstance(value, yaml.ScalarNode):
                raise UserError(f"{where}: {section}.{name} must be a text; put it in quotation marks.")
            found[section][name] = value_of(value, kind)
    return found


def entries(node: yaml.Node | None, where: str) -> Iterator[tuple[str, yaml.Node]]:
    """The keys and values of a mapping; nothing for an empty one."""
    if node is None or is_null(node):
        return
    if not isinstance(node, yaml.MappingNode):
        raise UserError(
            f"{where}: a recipe consists of the sections {SECTIONS}, each once and with keys and values."
        )
    for key, value in node.value:
        yield str(key.value), value


def later(model: dict[str, Any]) -> None:
    """Adds model settings that the configuration of an older run lacks, with the values it was trained with."""
    others = {field.name for field in dataclasses.fields(ModelConfig)} - LATER.keys()
    if others <= model.keys():
        model |= {name: value for name, value in LATER.items() if name not in model}


def distilled(value: Any) -> Any:
    """The value of `task.distill`: all losses or none for the true or false of earlier releases. Others stay."""
    switch = BOOLEANS.get(str(value).lower())
    return value if switch is None else DISTILLED if switch else ()


def split_override(override: str) -> tuple[str, str, Any]:
    """Section, name and value of `--section.name=value`. A text is taken as typed; other values are YAML."""
    key, equals, value = override.removeprefix("--").partition("=")
    if not override.startswith("--") or not equals:
        raise UserError(
            f"{override!r} is not a setting: write --section.key=value, such as --train.steps=100."
        )
    check_key(key, "command line")
    section, _, name = key.partition(".")
    if not name:
        raise UserError(
            f"{override!r} names a whole section: write --section.key=value, such as --train.steps=100."
        )
    try:
        return section, name, typed_value(value, KINDS[section][name])
    except Exception as error:  # whatever broken content may raise
        raise UserError(
            f"{override!r}: the value is not valid YAML ({plain(str(error))}); correct it."
        ) from error


def check_key(key: str, where: str) -> None:
    """Raises `UserError` for an unknown key, and names the nearest known one."""
    known = [f"{section}.{name}" for section, names in KINDS.items() for name in names]
    if key not in known and key not in KINDS:
        near = difflib.get_close_matches(key, [*known, *KINDS], 1, 0.4)
        hint = f"did you mean {near[0]}?" if near else f"the sections are {SECTIONS}."
        raise UserError(f"{where}: unknown setting {key}; {hint}")


def plain(message: str) -> str:
    """The message of a parser, on one line."""
    return " ".join(message.split())


def dump_config(config: Config) -> str:
    """The whole configuration as YAML. `load_recipe` reads it back unchanged."""
    sections = {name: to_yaml(dataclasses.asdict(getattr(config, name))) for name in KINDS}
    return yaml.safe_dump(sections, sort_keys=False)


def to_yaml(section: dict[str, Any]) -> dict[str, Any]:
    """The section with lists instead of tuples, which YAML lacks."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in section.items()}
