"""The command `albef`. Each module here holds a group of commands: their arguments and what they do.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from albef.cli import data, measuring, models, predicting, searching, training, upkeep
from albef.cli.arguments import Help, leaves
from albef.cli.printing import cautions, printing
from albef.cli.unexpected import sentence
from albef.cli.versions import Version
from albef.errors import UserError, printable

UNEXPECTED, INTERRUPTED = 1, 130
DESCRIPTION = (
    "Train vision–language models, search images with them, and ask them about images. The systems are ALBEF and CLIP, "
    "and on regions of a detector UNITER, OSCAR and LXMERT."
)
FIRST_STEPS = """\
first steps:
  albef train recipes/quickstart.yaml
  albef index runs/quickstart ~/Pictures --out photos.idx
  albef search photos.idx "two foxes"

albef COMMAND --help shows the options of a command and an example."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command.

    Exit status: 0; 2 for a mistake that the user can correct; 1 for an unexpected error, and for damage that
    `albef verify` finds; 130 after Ctrl-C; 143 after SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may hold bytes that a terminal can't show
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser()
    typed = list(sys.argv[1:] if arguments is None else arguments)
    words, settings = training.split_settings(typed)
    given, unknown = parser.parse_known_args(words)
    settings += unknown
    takes_settings = given.command in training.TAKE_SETTINGS
    if settings and not takes_settings:
        parser.error(f"unknown argument: {settings[0]}")
    try:
        with cautions(), printing():
            given.command(given, settings) if takes_settings else given.command(given)
    except UserError as error:
        print(f"albef: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)
    except OSError as error:
        if error.filename is None or error.errno is None:  # not about a file that the user named
            fail(error, typed, given)
        print(f"albef: {error.filename}: {os.strerror(error.errno)}; choose another path.", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(f"albef: stopped. {stop}".rstrip(), file=sys.stderr)
        sys.exit(INTERRUPTED)
    except Exception as error:
        if (
            type(error).__name__ == "OutOfMemoryError"
        ):  # torch's own, of a GPU; torch is not imported for a name
            print(f"albef: {full_gpu(given)}", file=sys.stderr)
            sys.exit(2)
        fail(error, typed, given)


def full_gpu(given: argparse.Namespace) -> str:
    """The sentence for a GPU without free memory, with the options of the command that help."""
    remedies = {
        "batch_size": "give it less at once with a smaller --batch-size",
        "bf16": "compute in half the memory with --bf16",
        "device": "choose another device, such as --device=cpu",
    }
    offered = [
        remedy
        for name, remedy in remedies.items()
        if hasattr(given, name) and getattr(given, name) is not True
    ]
    return f"The memory of the GPU is full: {', or '.join(offered) or 'free some of it, or take a smaller model'}."


def fail(error: Exception, typed: Sequence[str], given: argparse.Namespace) -> NoReturn:
    """Ends the command with one sentence about an unexpected error, or with its traceback after `--traceback`."""
    if given.traceback:
        raise error
    print(f"albef: {sentence(error, typed, output_of(given))}", file=sys.stderr)
    sys.exit(UNEXPECTED)


def output_of(given: argparse.Namespace) -> Path | None:
    """The first file or folder that a command was asked to write."""
    named = (getattr(given, name, None) for name in ("out", "resume", "official", "json", "results"))
    return next((path for path in named if isinstance(path, Path)), None)


def build_parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="albef", description=DESCRIPTION, epilog=FIRST_STEPS, formatter_class=Help
    )
    parser.add_argument("--version", action=Version)
    commands = parser.add_subparsers(required=True, title="commands", metavar="COMMAND")
    for group in (training, measuring, predicting, models, data, searching, upkeep):
        group.add(commands)
    for command in leaves(parser):
        command.formatter_class = Help
        command.add_argument(
            "--traceback",
            action="store_true",
            default=bool(os.environ.get("ALBEF_TRACEBACK")),
            help="show the traceback of an unexpected error (default: off)",
        )
    return parser
