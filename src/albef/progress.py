"""Progress bars, on terminals only."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

T = TypeVar("T")


def track(items: Iterable[T], label: str, total: int, quiet: bool = False) -> Iterator[T]:
    """The items, with a progress bar on a terminal."""
    console = Console(stderr=True)
    hidden = quiet or not sys.stderr.isatty()
    yield from rich_track(items, label, total, console=console, disable=hidden, transient=True)
