"""`albef runs`, `albef verify`, `albef doctor`: what is there, whether it is whole, and what the machine has."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from albef.cli.arguments import Commands
from albef.progress import console


def add(commands: Commands) -> None:
    """The commands' arguments."""
    command = commands.add_parser("runs", help="list the runs in a folder, with state, step and figures")
    command.add_argument(
        "folder", type=Path, nargs="?", default=Path("runs"), metavar="DIR", help="folder (default: runs)"
    )
    command.set_defaults(command=runs)

    command = commands.add_parser("verify", help="check that every file is as it was written")
    command.add_argument("place", type=Path, metavar="RUN_OR_MODEL_OR_IDX", help="folder to check")
    command.set_defaults(command=verify)

    command = commands.add_parser(
        "doctor", help="what this machine has for training: versions, devices, limits, room"
    )
    command.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("runs"),
        metavar="DIR",
        help="where runs would be (default: runs)",
    )
    command.set_defaults(command=doctor)


def runs(given: argparse.Namespace) -> None:
    """`albef runs`"""
    from rich.table import Table

    from albef.cli.runs import runs_in

    table = Table("run", "state", "step", "of", "figure", title=str(given.folder))
    for run in runs_in(given.folder):
        name = run.folder.relative_to(given.folder)
        table.add_row(str(name), run.state, f"{run.step:,}", f"{run.steps:,}", run.figure)
    console().print(table)


def verify(given: argparse.Namespace) -> None:
    """`albef verify`; exits with 1 when something is damaged."""
    from albef.cli.runs import verified

    found = list(verified(given.place))
    for folder, problem in found:
        print(problem or f"{folder}: as it was written")
    if any(problem for _, problem in found):
        sys.exit(1)


def doctor(given: argparse.Namespace) -> None:
    """`albef doctor`"""
    from rich.table import Table

    from albef.cli.doctor import findings

    table = Table("", "found", "advice", show_header=False)
    for row in findings(given.folder):
        table.add_row(*row)
    console().print(table)
