"""A lock that lets one process at a time use a folder. The operating system releases it when the process ends."""

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

# Hidden, so that a folder with nothing else counts as new. If a training starts several processes, the first has a
# lock of its own: when its parent is killed, it still writes a checkpoint.
LOCK_FILE, CHILD_LOCK_FILE = ".lock", ".lock-child"
LONGEST_HOLDER = 200
MOST_ATTEMPTS = 100  # to make a lock file in a folder that others remove when they end


@contextlib.contextmanager
def alone_in(folder: Path, name: str = LOCK_FILE, say: Callable[[str], None] = print) -> Iterator[None]:
    """Locks a folder for one training while the block runs. Creates the folder if needed.

    Raises `UserError` if another process has the lock (and names it), and if the folder cannot be written. If the file
    system has no locks, this is said, and the block runs without one.
    """
    busy = "is training here. Wait until it ends, stop it, or choose another folder with --out."
    with contextlib.ExitStack() as held:
        with told(folder, Path(os.path.realpath(folder))):
            reason = held.enter_context(locked(folder / name, folder, busy))
        if reason:
            say(f"{folder} cannot be locked ({reason}). Make sure that no second training uses it.")
        yield


@contextlib.contextmanager
def locked(file: Path, what: Path, busy: str, wait: bool = False) -> Iterator[str]:
    """Locks a file for this process while the block runs. Creates the file and its folder if needed.

    Yields an empty string, or the reason if the file system has no locks. If another process has the lock, it waits
    with `wait`, and otherwise raises `UserError` (`what`: that process `busy`). Raises `OSError` for a file that cannot
    be written. A killed process leaves no lock, and children do not inherit it.
    """
    attempts = 0
    while True:
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            number = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        except (FileNotFoundError, FileExistsError):
            attempts += 1
            if attempts == MOST_ATTEMPTS:
                raise
            continue  # a holder has just ended and removed the folder; another may have made it again
        try:
            reason = ""
            try:
                fcntl.lockf(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except (BlockingIOError, PermissionError):
                raise UserError(f"{what}: {holder(number)} {busy}") from None
            except OSError as error:
                reason = plain(error)
            if not is_still(file, number):  # the holder may have removed its lock file
                continue
            if not reason:
                with contextlib.suppress(OSError):  # the lock works on a full disk too
                    os.ftruncate(number, 0)
                    os.pwrite(number, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
            yield reason
            return
        finally:
            os.close(number)


def is_still(file: Path, number: int) -> bool:
    """Whether the open file still has this name."""
    try:
        return os.path.samestat(os.fstat(number), file.stat())
    except FileNotFoundError:
        return False


def is_held(folder: Path, name: str = LOCK_FILE) -> bool:
    """Whether another process has locked the folder. False if the file system has no locks.

    The holder must not call this: closing the file would release its lock.
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
    """The process that a lock file names."""
    written = os.pread(file, LONGEST_HOLDER, 0).decode("utf-8", "replace").split("\n")[0]
    return written if written.startswith("process ") and written.isprintable() else "another process"
