"""What the arguments of the commands have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

from albef.writing import check_file

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def make_room(*files: Path | None) -> None:
    """Makes the folders that results will be written into, before anything is computed."""
    for file in files:
        if file is not None:
            check_file(file)
