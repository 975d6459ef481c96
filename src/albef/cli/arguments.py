"""What the arguments of the commands have in common: ranges, places to write to, the machine, help with defaults."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from albef.writing import STANDARD_OUTPUT

if TYPE_CHECKING:
    from albef.engine import Engine

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
MOST = 10**9  # of whatever is counted; more is a slip
LARGEST_SEED = 2**63 - 1


class Help(argparse.HelpFormatter):
    """Help that shows the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        text, default = action.help, action.default
        silent = not action.option_strings or default is argparse.SUPPRESS or default in (None, False, "", [])
        return text if silent or (text and "default" in text) else f"{text} (default: %(default)s)"


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """Reads a whole number from `least` to `most`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if not least <= number <= most:
            bound = f"less than {least}" if number < least else f"more than {most}"
            raise argparse.ArgumentTypeError(f"{number} is {bound}")
        return number

    return read


def output_file(text: str) -> Path:
    """A file to write; refuses what can only be a folder."""
    if text == str(STANDARD_OUTPUT):
        raise argparse.ArgumentTypeError("'-' stands for standard output, where this can't go; name a file")
    if text.endswith(("/", "/.", "/..")):
        raise argparse.ArgumentTypeError(
            f"{text!r} is a folder, where a file is to be written; name a file in it"
        )
    return Path(text)


def json_file(text: str) -> Path:
    """A file to write, or `STANDARD_OUTPUT`."""
    return STANDARD_OUTPUT if text == str(STANDARD_OUTPUT) else output_file(text)


def names_a_file(text: str) -> bool:
    """Whether a query is a file that there is, or is named like an image, and not a sentence."""
    from albef.data.formats import SUFFIXES

    try:
        return os.path.isfile(text) or Path(text).suffix.lower() in SUFFIXES
    except ValueError:  # of characters that no path has
        return False


def add_machine(command: argparse.ArgumentParser) -> None:
    """Options that say where and in which precision a model computes."""
    command.add_argument(
        "--device",
        default="auto",
        help="where to compute: auto (a GPU if there is one), cpu, cuda, cuda:1, …",
    )
    command.add_argument("--bf16", action="store_true", help="faster on many machines; moves scores a little")


def load_engine(given: argparse.Namespace, quiet: bool = False) -> Engine:
    """The model that was named, where `add_machine`'s options say."""
    from albef.engine import Engine

    return Engine.load(given.model, given.device, quiet, given.bf16)


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers below one that take a whole command."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for one in dict.fromkeys(action.choices.values()):
            yield from leaves(one)
    if not below:
        yield parser
