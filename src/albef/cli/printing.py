"""How warnings are printed, and what happens when the output can no longer be printed."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import TextIO

from albef.disk import REASONS
from albef.errors import Caution, UserError, printable

CLOSED_PIPE = 141  # 128 + SIGPIPE, as shells report it


@contextlib.contextmanager
def cautions() -> Iterator[None]:
    """Prints each `Caution` as a sentence, once, instead of as a warning with the place in the code."""
    said: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", Caution)
        others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, Caution):
                if str(message) not in said:
                    print(f"albef: {printable(str(message))}", file=sys.stderr)
                said.add(str(message))
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Exits quietly when the reader of a pipe is gone, such as `head`.

    Raises `UserError` when standard output is a file on a full disk.
    """
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        discard_output()
        sys.exit(CLOSED_PIPE)
    except OSError as error:
        if error.filename is not None or error.errno not in REASONS:
            raise
        discard_output()
        raise UserError(f"The output can't be written: {REASONS[error.errno]}.") from error


def discard_output() -> None:
    """Discards what is still to be printed, so that it does not fail again when Python exits."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
