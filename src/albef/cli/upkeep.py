"""`albef runs`, `albef verify`, `albef doctor`: the state of runs, of files, and of the machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from albef.cli.arguments import Commands
from albef.progress import console


def add(commands: Commands) -> None:
    """Adds the commands and their arguments."""
    command = commands.add_parser(
        "runs",
        help="list runs with their state and figures",
        description="Lists the runs in a folder and below it: finished or not, at which step, with which result.",
        epilog="example:\n  albef runs runs",
    )
    command.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("runs"),
        metavar="DIR",
        help="folder to look in (default: runs)",
    )
    command.set_defaults(command=runs)

    command = commands.add_parser(
        "verify",
        help="check files for damage",
        description="Compares every file of a run, model directory or index with the hash that was stored when it "
        "was written. Exit status 1: something is damaged.",
        epilog="example:\n  albef verify runs/quickstart",
    )
    command.add_argument(
        "place", type=Path, metavar="RUN_OR_MODEL_OR_IDX", help="run, model directory or index to check"
    )
    command.set_defaults(command=verify)

    command = commands.add_parser(
        "doctor",
        help="check this machine: versions, devices, memory, disk",
        description="Shows what this machine offers for training: versions, devices, memory, limits and disk space. "
        "Gives advice where something may run short.",
        epilog="example:\n  albef doctor",
    )
    command.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path("runs"),
        metavar="DIR",
        help="folder that runs will be written to, for the disk space (default: runs)",
    )
    command.set_defaults(command=doctor)


def runs(given: argparse.Namespace) -> None:
    """`albef runs`"""
    from rich.table import Table

    from albef.cli.runs import runs_in

    table = Table("run", "state", "step", "of steps", "result", title=str(given.folder))
    for run in runs_in(given.folder):
        name = run.folder.relative_to(given.folder)
        table.add_row(str(name), run.state, f"{run.step:,}", f"{run.steps:,}", run.figure)
    console().print(table)


def verify(given: argparse.Namespace) -> None:
    """`albef verify`; exit status 1 when something is damaged."""
    from albef.cli.runs import verified

    found = list(verified(given.place))
    for folder, problem in found:
        print(problem or f"{folder}: undamaged")
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
