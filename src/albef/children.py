"""Starting other processes from a user's script, which each of them imports again."""

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

UNGUARDED = 87  # exit code of a process that began, while it was being started, what had started it
GUARD = (
    "The processes that are started here import this script again, and would begin all anew: put the call under "
    '`if __name__ == "__main__":`.'
)


def refuse_while_starting() -> None:
    """Ends this process if it is being started by multiprocessing and has only got as far as importing the script."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        os._exit(UNGUARDED)  # whoever started it says why


def check_script() -> None:
    """Raises `UserError` for a script that other processes can't import, since it came from standard input."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is not None and not Path(file).exists():
        raise UserError(
            f"The script was read from {Path(file).name}, and processes that are started here have to import it: "
            f"save it as a file."
        )


def check_start(context: BaseContext) -> None:
    """Starts a process that does nothing; raises `UserError` if it can't be started from this script."""
    refuse_while_starting()
    check_script()
    process = context.Process(target=nothing)  # type: ignore[attr-defined]
    process.start()
    process.join()
    if process.exitcode:
        raise UserError(why_ended(process.exitcode))


def why_ended(exit_code: int) -> str:
    """Why a process may have ended so."""
    if exit_code == UNGUARDED:
        return GUARD
    if exit_code < 0:
        return (
            f"A process was ended by signal {-exit_code}; the system does that when the memory is full. Give it less "
            f"to do at once, or more memory."
        )
    return f"A process ended with exit code {exit_code}; what it said is above."


def nothing() -> None:
    """What the process of `check_start` does."""


@contextlib.contextmanager
def held_back(numbers: Collection[int]) -> Iterator[None]:
    """Within it the signals wait until its end; for processes that are started in it until they unblock them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
