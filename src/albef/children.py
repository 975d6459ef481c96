"""Starts other processes from a user's script. Each of them imports the script again."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Collection, Iterator
from multiprocessing.context import BaseContext
from pathlib import Path

from albef.errors import UserError

UNGUARDED = 87  # exit code of a process that would have started the same work again while starting
GUARD = (
    "albef starts processes that import this script again, and each would begin the same work again. Put the call "
    'under `if __name__ == "__main__":`.'
)


def refuse_while_starting() -> None:
    """Ends this process if multiprocessing is just starting it, and it is still importing the script."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)  # the parent process says why


def check_script() -> None:
    """Raises `UserError` for a script from standard input, which other processes cannot import."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is not None and not Path(file).exists():
        raise UserError(
            f"The script was read from {Path(file).name}, but the processes that albef starts must import it. "
            f"Save it as a file."
        )


def check_start(context: BaseContext) -> None:
    """Starts an empty process. Raises `UserError` if that is not possible from this script."""
    refuse_while_starting()
    check_script()
    process = context.Process(target=nothing)  # type: ignore[attr-defined]
    process.start()
    process.join()
    if process.exitcode:
        raise UserError(why_ended(process.exitcode))


def why_ended(exit_code: int) -> str:
    """The likely reason for an exit code."""
    if exit_code == UNGUARDED:
        return GUARD
    if exit_code < 0:
        return (
            f"A process was ended by signal {-exit_code}. The system does that when memory is full. Use a smaller "
            f"batch, or a machine with more memory."
        )
    return f"A process ended with exit code {exit_code}. Its messages are above."


def nothing() -> None:
    """The work of the empty process in `check_start`."""


@contextlib.contextmanager
def held_back(numbers: Collection[int]) -> Iterator[None]:
    """Blocks the signals until the block ends. Processes started in it have them blocked until they unblock them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
