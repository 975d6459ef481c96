"""Signals that ask a training to save and stop, or to save and continue."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from enum import IntEnum
from types import FrameType

from albef.config import UserError

# A closed terminal or a broken connection sends SIGHUP; clusters may send SIGUSR1 before the time is up.
STOP, SAVE = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP), signal.SIGUSR1
Handler = Callable[[int, FrameType | None], None]


class Interrupted(Exception):
    """A signal stopped the run. A checkpoint holds everything up to here."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.exit_code = 128 + number  # as shells count: 130 after Ctrl-C, 143 after SIGTERM


class Wish(IntEnum):
    """What a training should do after the current step."""

    NOTHING, SAVE, STOP = 0, 1, 2


@dataclass
class Asked:
    """What signals have asked for while the `with` block runs. Only for the main thread."""

    stop: int = 0  # the signal's number
    save: bool = False
    ctrl_c: bool = False

    def __enter__(self) -> Asked:
        numbers = heard()
        self._left = contextlib.ExitStack()
        self._left.enter_context(handled(numbers, self._note))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)
        return self

    def __exit__(self, *_: object) -> None:
        self._left.close()

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Asks for a stop after the current step. A second Ctrl-C stops at once."""
        if number == SAVE:
            self.save = True
            return
        if number == signal.SIGINT and self.ctrl_c:
            raise KeyboardInterrupt
        self.ctrl_c = self.ctrl_c or number == signal.SIGINT
        self.stop = self.stop or number


def check_main_thread() -> None:
    """Raises `UserError` outside of the main thread, the only one in which Python handles signals."""
    if threading.current_thread() is not threading.main_thread():
        raise UserError(
            "Training must run in the main thread, since Python handles Ctrl-C and SIGTERM only there. Call it in the "
            "main thread, or in a separate process."
        )


def heard() -> set[int]:
    """The signals to handle. SIGHUP unless it is ignored (as under nohup), SIGUSR1 unless it has another handler."""
    found: set[int] = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        found.add(signal.SIGHUP)
    if signal.getsignal(SAVE) == signal.SIG_DFL:
        found.add(SAVE)
    return found


@contextlib.contextmanager
def handled(numbers: Collection[int], handler: Handler) -> Iterator[None]:
    """Sends the signals to the handler while the `with` block runs."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, signal.SIG_DFL if previous is None else previous)


def stop_at_once(number: int, frame: FrameType | None) -> None:
    """A handler for the time when there is nothing to save."""
    raise KeyboardInterrupt
