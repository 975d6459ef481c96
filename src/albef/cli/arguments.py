"""What the arguments of the commands have in common: ranges, output files, the device, and help with defaults."""

from __future__ import annotations

import argparse
import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from albef.errors import UserError
from albef.writing import STANDARD_OUTPUT

if TYPE_CHECKING:
    from albef.engine import Engine

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"
MOST = 10**9  # upper limit of every count; a larger number is a slip
LARGEST_SEED = 2**63 - 1


class Help(argparse.HelpFormatter):
    """Help that shows the default of every option, and keeps the lines of a command's examples."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return meaning_of(action).replace("%", "%%")

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        fill = super()._fill_text
        return "\n".join(
            line if line.startswith(" ") else fill(line, width, indent) for line in text.splitlines()
        )

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(
            " ".join(text.split()), width, break_on_hyphens=False
        )  # names can be copied whole

    def add_argument(self, action: argparse.Action) -> None:
        """Adds an argument; the names of commands are indented, for which argparse leaves no room."""
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += 2


def meaning_of(action: argparse.Action) -> str:
    """What help says of an argument: its meaning, and of an option that need not be given its default."""
    text, default = action.help or "", action.default
    needs_none = action.required or not action.option_strings or default is argparse.SUPPRESS
    if needs_none or "(default: " in text:
        return text
    if default is None or default is False:
        default = "none" if default is None else "off"
    return f"{text} (default: {default})"


def whole(least: int, most: int = MOST) -> Callable[[str], int]:
    """A reader of whole numbers from `least` to `most`."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not least <= number <= most:
            bound = f"less than {least}" if number < least else f"more than {most}"
            raise argparse.ArgumentTypeError(f"{number} is {bound}")
        return number

    return read


def output_file(text: str) -> Path:
    """The file to write; refuses what can only be a folder."""
    if text == str(STANDARD_OUTPUT):
        raise argparse.ArgumentTypeError(
            "'-' means standard output, but this can only be written to a file; name one"
        )
    if text.endswith(("/", "/.", "/..")):
        raise argparse.ArgumentTypeError(
            f"{text!r} is a folder, but a file is written here; name a file in it"
        )
    return Path(text)


def json_file(text: str) -> Path:
    """A file to write, or `STANDARD_OUTPUT`."""
    return STANDARD_OUTPUT if text == str(STANDARD_OUTPUT) else output_file(text)


def query_of(text: str) -> Path | str:
    """A query: the path of an existing file, or of what is named like an image; otherwise a text.

    Raises `UserError` if an image of that name does not exist.
    """
    from albef.data.formats import SUFFIXES

    path = Path(text)
    if path.suffix.lower() not in SUFFIXES:
        return path if os.path.isfile(path) else text
    if not os.path.lexists(path):
        raise UserError(
            f"{path}: no such file. A query that ends in {path.suffix} is read as an image: correct its path, or write "
            f"the text without this ending."
        )
    return path


def add_machine(command: argparse.ArgumentParser) -> None:
    """Adds the options that say on which device and in which precision a model computes."""
    command.add_argument(
        "--device",
        default="auto",
        metavar="DEVICE",
        help="device to compute on: cpu, cuda, cuda:1, …; auto: a GPU if there is one",
    )
    command.add_argument(
        "--bf16",
        action="store_true",
        help="compute in bfloat16: faster on many machines, changes scores a little",
    )


def add_regions(command: argparse.ArgumentParser, default: str) -> None:
    """Adds `--regions`, which says where the regions of images are."""
    command.add_argument(
        "--regions",
        default="",
        metavar="PLACE",
        help="UNITER, OSCAR and LXMERT: file or folder with the regions of the images; docs/data.md says of what kind "
        f"(default: {default})",
    )


def add_json(command: argparse.ArgumentParser, what: str) -> None:
    """Adds `--json`, which writes `what` to a file or prints it."""
    command.add_argument(
        "--json",
        type=json_file,
        metavar="FILE",
        help=f"also write {what} to this JSON file; -: print the JSON and nothing else (default: no file)",
    )


def load_engine(given: argparse.Namespace, quiet: bool = False, regions: str = "") -> Engine:
    """The model that the command names, on the device and in the precision of `add_machine`'s options."""
    from albef.engine import Engine

    return Engine.load(given.model, given.device, quiet, given.bf16, regions)


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parsers of whole commands, such as `data export`; `data` by itself is none."""
    below = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for action in below:
        for one in dict.fromkeys(action.choices.values()):
            yield from leaves(one)
    if not below:
        yield parser
