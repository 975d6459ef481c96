"""How things are shown: progress on terminals only, tables unfolded elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar("T")
UNFOLDED = 10_000  # letters of a line that no terminal shows


def console() -> Console:
    """Where tables are printed. Only a terminal has a width: into a pipe or a file nothing is folded or cut."""
    shown = Console(markup=False)  # in a path brackets are brackets
    return shown if shown.is_terminal else Console(markup=False, width=UNFOLDED)


def track(items: Iterable[T], label: str, total: int, quiet: bool = False) -> Iterator[T]:
    """The items, with a progress bar on a terminal."""
    console = Console(stderr=True)
    hidden = quiet or not sys.stderr.isatty()
    yield from rich_track(items, label, total, console=console, disable=hidden, transient=True)
