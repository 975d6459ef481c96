"""What is printed: readable whatever is in it, and quietly given up where nobody reads on."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from albef.config import UserError
from albef.disk import REASONS

CLOSED_PIPE = 141  # as of a program that the signal of a closed pipe ends


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """Exits quietly when the reader of a pipe has gone, as `head` goes.

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
    """What is still to be printed goes nowhere, so that nothing fails once more when Python ends."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
