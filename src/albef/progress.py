"""How things are shown: progress on terminals only, tables unfolded elsewhere."""

from __future__ import annotations

import contextlib
import os
import select
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
    hidden = quiet or sys.stderr is None or not sys.stderr.isatty()
    yield from rich_track(items, label, total, console=console, disable=hidden, transient=True)


def say(text: str) -> None:
    """Prints a line at once. What can no longer be printed, to a closed terminal or pipe or a full disk, is no error."""
    try:
        print(text, flush=True)
    except OSError:
        discard_what_is_gone()


def show(*what: object) -> None:
    """Prints tables and texts as `console` does; what can no longer be printed is no error."""
    try:
        console().print(*what)
        sys.stdout.flush()
    except OSError:
        discard_what_is_gone()


def duration(seconds: float) -> str:
    """A time in the two largest units that it needs."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def discard_what_is_gone() -> None:
    """Sends output to nowhere from now on where its terminal or the reader of its pipe has gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(
            OSError, ValueError, AttributeError
        ):  # of streams that are none of the system's
            number = stream.fileno()
            watch = select.poll()
            watch.register(number, 0)
            if any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0)):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, number)
                os.close(nowhere)
