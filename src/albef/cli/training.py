"""`albef train` and `albef estimate`: what takes a recipe."""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from albef.cli.arguments import Commands
from albef.config import SECTIONS, UserError
from albef.progress import console

SETTING = re.compile(r"--\w+\.\w+=")


def add(commands: Commands) -> None:
    """The commands' arguments."""
    command = commands.add_parser(
        "train",
        help="train a recipe, evaluate it and write its report",
        description="Any setting of the recipe can be overridden: --section.key=value. A text is taken as it is typed, "
        "lists are written [a, b].",
    )
    command.add_argument("recipe", type=Path, nargs="?", metavar="RECIPE.yaml", help="the recipe")
    command.add_argument("--out", type=Path, metavar="RUN", help="run folder (default: runs/NAME_OF_RECIPE)")
    command.add_argument("--resume", type=Path, metavar="RUN", help="continue this run; needs no recipe")
    command.add_argument(
        "--allow-changes",
        action="store_true",
        help="continue although settings or data have changed, and note it in RUN/changes.jsonl",
    )
    command.add_argument("--init", metavar="MODEL", help="model to start from, like --train.init=MODEL")
    command.add_argument(
        "--print_config", action="store_true", help="print all settings of this run and stop"
    )
    command.set_defaults(command=train)

    command = commands.add_parser(
        "estimate",
        help="parameters, memory and time of a recipe, from a few steps",
        description="Any setting of the recipe can be overridden: --section.key=value. A text is taken as it is typed, "
        "lists are written [a, b].",
    )
    command.add_argument("recipe", type=Path, metavar="RECIPE.yaml", help="the recipe")
    command.set_defaults(command=estimate)

    command = commands.add_parser("settings", help="every setting of a recipe, with default and meaning")
    command.add_argument("section", nargs="?", choices=SECTIONS, help="one section (default: all)")
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(command=settings)


def train(given: argparse.Namespace, settings: list[str]) -> None:
    """`albef train`"""
    from albef.recipe import dump_config, load_recipe

    if given.init:
        settings = [*settings, f"--train.init={given.init}"]
    if (given.recipe is None) == (given.resume is None):
        raise UserError("albef train takes either a recipe or --resume RUN.")
    if given.resume and given.out:
        raise UserError("--resume RUN goes on in that folder: leave --out away.")
    if given.resume and not (given.resume / "config.yaml").is_file():
        raise UserError(f"{given.resume}: holds no run (there is no config.yaml).")
    config = load_recipe(given.resume / "config.yaml" if given.resume else given.recipe, settings)
    if given.print_config:
        print(dump_config(config), end="")
        return
    from albef.run import run
    from albef.train.stopping import Interrupted

    out = given.resume or given.out or Path("runs") / given.recipe.stem
    try:
        run(config, out, given.allow_changes)
    except Interrupted as stop:
        print(f"albef: {stop} Go on with albef train --resume {shlex.quote(str(out))}", file=sys.stderr)
        sys.exit(stop.exit_code)


def estimate(given: argparse.Namespace, settings: list[str]) -> None:
    """`albef estimate`"""
    from rich.table import Table

    from albef.cli.estimate import estimate as measure
    from albef.recipe import load_recipe

    found = measure(load_recipe(given.recipe, settings))
    table = Table(show_header=False, title=f"{given.recipe}, each process")
    table.add_row("parameters", f"{found.parameters:,}")
    for name in ("weights", "teacher", "optimizer", "memory"):
        table.add_row(
            {
                "weights": "weights and gradients",
                "teacher": "teacher and queue",
                "memory": "memory there is",
            }.get(name, name),
            f"{getattr(found, f'{name}_bytes') / 2**20:,.1f} MB",
        )
    table.add_row("activations a pair", f"{found.activation_bytes_per_pair / 2**20:,.2f} MB")
    table.add_row("largest train.micro_batch_size that fits", f"{found.largest_micro_batch:,}")
    table.add_row("pairs a second, all processes", f"{1 / found.seconds_per_pair:,.0f}")
    table.add_row("an epoch", f"{found.seconds_per_epoch / 60:,.1f} minutes")
    table.add_row("the whole run, at the pace of its end", f"{found.seconds_in_all / 3600:,.2f} hours")
    console().print(table)


def settings(given: argparse.Namespace) -> None:
    """`albef settings`"""
    from rich.table import Table

    from albef.cli.settings import settings as every
    from albef.cli.settings import shown

    found = {name: ones for name, ones in every().items() if given.section in (None, name)}
    if given.json:
        rows = {f"{name}.{one.name}": one._asdict() for name, ones in found.items() for one in ones}
        print(json.dumps(rows, indent=1))
        return
    for name, ones in found.items():
        table = Table("setting", "default", "meaning", title=name, title_justify="left")
        for one in ones:
            table.add_row(f"{name}.{one.name}", shown(one.default), one.meaning)
        console().print(table)


TAKE_SETTINGS = (train, estimate)


def split_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """What was typed without any `--section.key=value`, and those: a recipe's, which knows its keys and their types.

    argparse would take one with a space in it for the name of a file.
    """
    if list(words[:1]) not in [[command.__name__] for command in TAKE_SETTINGS]:
        return list(words), []
    settings = [word for word in words if SETTING.match(word)]
    return [word for word in words if not SETTING.match(word)], settings
