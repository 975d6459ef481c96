"""The commands that take a recipe (`albef train`, `albef estimate`), and `albef settings`."""

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
OVERRIDES = (
    "--section.key=value changes a setting of the recipe. A list is written [a, b]; a text needs no quotation "
    "marks but those of your shell. albef settings lists every setting."
)


def add(commands: Commands) -> None:
    """Adds the commands and their arguments."""
    add_train(commands)
    add_estimate(commands)
    add_settings(commands)


def add_train(commands: Commands) -> None:
    """Adds `albef train` and its arguments."""
    command = commands.add_parser(
        "train",
        help="train a model, evaluate it and write a report",
        description="Trains the model that a recipe describes, evaluates it and writes a report. A recipe is a YAML "
        "file; the folder recipes holds examples.\n\n" + OVERRIDES,
        usage="albef train RECIPE.yaml [--section.key=value ...] [OPTIONS]\n       "
        "albef train --resume RUN [OPTIONS]",
        epilog="example:\n  albef train recipes/quickstart.yaml --train.steps=500 --out runs/short",
    )
    command.add_argument(
        "recipe", type=Path, nargs="?", metavar="RECIPE.yaml", help="recipe; leave it out with --resume"
    )
    command.add_argument(
        "--out",
        type=Path,
        metavar="RUN",
        help="folder of the run: checkpoints, model, report (default: runs/ and the name of the recipe)",
    )
    command.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="continue the run in this folder from its last checkpoint (default: the recipe's run)",
    )
    command.add_argument(
        "--allow-changes",
        action="store_true",
        help="continue a run although settings or data have changed; RUN/changes.jsonl records the changes",
    )
    command.add_argument(
        "--init",
        metavar="MODEL",
        help="run or model to start from, the same as --train.init=MODEL (default: that of the recipe)",
    )
    command.add_argument(
        "--print_config", action="store_true", help="print every setting of this training as YAML and stop"
    )
    command.set_defaults(command=train)


def add_estimate(commands: Commands) -> None:
    """Adds `albef estimate` and its arguments."""
    command = commands.add_parser(
        "estimate",
        help="estimate the memory and time of a training",
        description="Estimates the memory and the time of a training from a few of its steps. Prints the number of "
        "parameters, the memory, the largest batch that fits and the time of the whole training. Writes nothing.\n\n"
        + OVERRIDES,
        usage="albef estimate RECIPE.yaml [--section.key=value ...] [OPTIONS]",
        epilog="example:\n  albef estimate recipes/pretrain-4m.yaml --train.precision=bf16",
    )
    command.add_argument("recipe", type=Path, metavar="RECIPE.yaml", help="recipe to estimate")
    command.set_defaults(command=estimate)


def add_settings(commands: Commands) -> None:
    """Adds `albef settings` and its arguments."""
    command = commands.add_parser(
        "settings",
        help="list every setting of a recipe",
        description="Lists the settings of a recipe with their defaults and meanings.",
        epilog="example:\n  albef settings train",
    )
    command.add_argument(
        "section",
        nargs="?",
        choices=SECTIONS,
        metavar="SECTION",
        help=f"section to list: {', '.join(SECTIONS)} (default: all)",
    )
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(command=settings)


def train(given: argparse.Namespace, settings: list[str]) -> None:
    """`albef train`"""
    from albef.recipe import dump_config, load_recipe

    if given.init:
        settings = [*settings, f"--train.init={given.init}"]
    if (given.recipe is None) == (given.resume is None):
        raise UserError("albef train takes a recipe or --resume RUN, and not both.")
    if given.resume and given.out:
        raise UserError("--resume RUN continues in that folder: leave out --out.")
    if given.resume and not (given.resume / "config.yaml").is_file():
        raise UserError(f"{given.resume}: holds no run (it has no config.yaml); name the folder of a run.")
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
        print(f"albef: {stop} To continue: albef train --resume {shlex.quote(str(out))}", file=sys.stderr)
        sys.exit(stop.exit_code)


def estimate(given: argparse.Namespace, settings: list[str]) -> None:
    """`albef estimate`"""
    from rich.table import Table

    from albef.cli.estimate import estimate as measure
    from albef.disk import size
    from albef.recipe import load_recipe

    found = measure(load_recipe(given.recipe, settings))
    table = Table(show_header=False, title=f"{given.recipe}: memory of each process, and time")
    table.add_row("device", found.device)
    table.add_row("parameters", f"{found.parameters:,}")
    for name, taken in (
        ("weights and gradients", found.weights_bytes),
        ("teacher and queue", found.teacher_bytes),
        ("optimizer", found.optimizer_bytes),
        ("activations per pair", found.activation_bytes_per_pair),
        ("available memory", found.memory_bytes),
    ):
        table.add_row(name, size(taken))
    table.add_row("largest train.micro_batch_size that fits", f"{found.largest_micro_batch:,} pairs")
    table.add_row("speed, all processes together", f"{1 / found.seconds_per_pair:,.0f} pairs per second")
    table.add_row("one epoch", f"{found.seconds_per_epoch / 60:,.1f} minutes")
    table.add_row(
        "whole training, at the speed of its last steps", f"{found.seconds_in_all / 3600:,.2f} hours"
    )
    console().print(table)


def settings(given: argparse.Namespace) -> None:
    """`albef settings`"""
    from rich.padding import Padding
    from rich.text import Text

    from albef.cli.settings import settings as every
    from albef.cli.settings import short_kind, shown

    found = {name: ones for name, ones in every().items() if given.section in (None, name)}
    if given.json:
        rows = {f"{name}.{one.name}": one._asdict() for name, ones in found.items() for one in ones}
        print(json.dumps(rows, indent=1))
        return
    out = console()
    for name, ones in found.items():
        for one in ones:
            default = "" if "(default: " in one.meaning else f" (default: {shown(one.default)})"
            out.print(Text(f"{name}.{one.name}:", "bold"), f"{short_kind(one.kind)}{default}")
            out.print(Padding(one.meaning, (0, 0, 0, 4), expand=False))


TAKE_SETTINGS = (train, estimate)


def split_settings(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of a command without its settings `--section.key=value`, and the settings, which the recipe checks.

    argparse would take a setting with a space in it for a file name.
    """
    if list(words[:1]) not in [[command.__name__] for command in TAKE_SETTINGS]:
        return list(words), []
    settings = [word for word in words if SETTING.match(word)]
    return [word for word in words if not SETTING.match(word)], settings
