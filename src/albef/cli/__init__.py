"""The command `albef`: one module for each group of commands, which says their arguments and what they do.

Heavy modules are imported inside the commands, so that help is quick.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from albef import __version__
from albef.cli import data, measuring, models, predicting, searching, training, upkeep
from albef.cli.printing import printing
from albef.config import UserError

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 0, or 2 for a mistake that the user can mend, 130 after Ctrl-C, 143 after SIGTERM."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of file names any bytes are allowed, of a terminal not
            stream.reconfigure(errors="backslashreplace")
    parser = build_parser()
    words, settings = training.split_settings(sys.argv[1:] if arguments is None else arguments)
    given, unknown = parser.parse_known_args(words)
    settings += unknown
    takes_settings = given.command in training.TAKE_SETTINGS
    if settings and not takes_settings:
        parser.error(f"unknown argument: {settings[0]}")
    try:
        with printing():
            given.command(given, settings) if takes_settings else given.command(given)
    except UserError as error:
        print(f"albef: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as stop:
        print(f"albef: stopped. {stop}".rstrip(), file=sys.stderr)
        sys.exit(INTERRUPTED)


def build_parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="albef", description="Align before fuse: vision and language together."
    )
    parser.add_argument("--version", action="version", version=f"albef {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (training, measuring, predicting, models, data, searching, upkeep):
        group.add(commands)
    return parser
