"""What the arguments of the commands have in common."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def output_file(text: str) -> Path:
    """A file to write; refuses what can only be a folder."""
    if text.endswith(("/", "/.", "/..")):
        raise argparse.ArgumentTypeError(
            f"{text!r} is a folder, where a file is to be written; name a file in it"
        )
    return Path(text)
