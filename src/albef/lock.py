"""One process at a time at a place, by a lock that the operating system drops together with its holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from albef.disk import told
from albef.errors import UserError
from albef.manifest import plain

# Hidden, so that a folder that holds nothing else is a new one. The first of the processes that a training starts has
# a lock of its own: when its parent is killed it still writes a checkpoint.
LOCK_FILE, CHILD_LOCK_FILE = ".lock", ".lock-child"
LONGEST_HOLDER = 200


@contextlib.contextmanager
def alone_in(folder: Path, name: str = LOCK_FILE, say: Callable[[str], None] = print) -> Iterator[None]:
    """While the block runs no other training gets this far with the same folder, which is made if it isn't there.

    Raises `UserError`, which names the process that is at work there, and for a folder that can't be written. Where
    the file system knows no locks that is said, and the block runs without.
    """
    busy = "is training here; wait for its end or stop it, or choose another folder with --out."
    with contextlib.ExitStack() as held:
        with told(folder, Path(os.path.realpath(folder))):
            reason = held.enter_context(locked(folder / name, folder, busy))
        if reason:
            say(f"{folder} can't be locked ({reason}): see that no second training is started there.")
        yield


@contextlib.contextmanager
def locked(file: Path, what: Path, busy: str, wait: bool = False) -> Iterator[str]:
    """While the block runs this process alone has locked the file, which is made if it isn't there, with its folder.

    Yields why there is no lock, on a file system that knows none; else nothing. Raises `UserError` where another
    process has it (`what`, that process, `busy`), unless it is to `wait`; and `OSError` for a file that can't be
    written. The lock is the process's: a killed one leaves none, and children don't inherit it.
    """
    while True:
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            number = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            if file.parent.is_dir():
                raise
            continue  # the holder has just left and taken the folder with it
        try:
            reason = ""
            try:
                fcntl.lockf(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except (BlockingIOError, PermissionError):
                raise UserError(f"{what}: {holder(number)} {busy}") from None
            except OSError as error:
                reason = plain(error)
            if not is_still(file, number):  # a holder that leaves may remove its lock
                continue
            if not reason:
                with contextlib.suppress(OSError):  # the lock holds on a full disk too
                    os.ftruncate(number, 0)
                    os.pwrite(number, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            yield reason
            return
        finally:
            os.close(number)


def is_still(file: Path, number: int) -> bool:
    """Whether the open file is the one of that name."""
    try:
        return os.path.samestat(os.fstat(number), file.stat())
    except FileNotFoundError:
        return False


def is_held(folder: Path, name: str = LOCK_FILE) -> bool:
    """Whether another process is at work in the folder; False where the file system knows no locks.

    Not for the holder itself to ask: closing the file would drop its lock.
    """
    try:
        file = os.open(folder / name, os.O_RDWR)
    except OSError:
        return False
    try:
        os.lockf(file, os.F_TEST, 0)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def holder(file: int) -> str:
    """The process that wrote itself into a lock."""
    written = os.pread(file, LONGEST_HOLDER, 0).decode("utf-8", "replace").split("\n")[0]
    return written if written.startswith("process ") and written.isprintable() else "another process"
