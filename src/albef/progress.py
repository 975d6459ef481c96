"""Output for people: progress bars and tables."""

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
UNFOLDED = 10_000  # characters in a line that is not for a terminal


def console() -> Console:
    """Where tables are printed. A terminal folds long lines; a pipe or file gets them whole."""
    shown = Console(markup=False)  # brackets in a path are not markup
    return shown if shown.is_terminal else Console(markup=False, width=UNFOLDED)


def track(items: Iterable[T], label: str, total: int, quiet: bool = False) -> Iterator[T]:
    """The items, with a progress bar on a terminal."""
    console = Console(stderr=True)
    hidden = quiet or sys.stderr is None or not sys.stderr.isatty()
    yield from rich_track(items, label, total, console=console, disable=hidden, transient=True)


def say(text: str) -> None:
    """Prints a line at once. A closed terminal, a closed pipe or a full disk is no error."""
    try:
        print(text, flush=True)
    except OSError:
        discard_what_is_gone()


def show(*what: object) -> None:
    """Prints tables and texts on `console`. A closed terminal, a closed pipe or a full disk is no error."""
    try:
        console().print(*what)
        sys.stdout.flush()
    except OSError:
        discard_what_is_gone()


def duration(seconds: float) -> str:
    """A time in its two largest units, such as "1 h 5 min"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def discard_what_is_gone() -> None:
    """From now on discards the output whose terminal, or whose pipe's reader, is gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(
            OSError, ValueError, AttributeError
        ):  # the stream may be no file of the system
            number = stream.fileno()
            watch = select.poll()
            watch.register(number, 0)
            if any(event & (select.POLLERR | select.POLLHUP) for _, event in watch.poll(0)):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, number)
                os.close(nowhere)
