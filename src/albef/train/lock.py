"""One training at a time in a run folder, by a lock that the operating system drops together with its holder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

from albef.config import UserError
from albef.manifest import plain

# Hidden, so that a folder that holds nothing else is a new one. The first of the processes that a training starts has
# a lock of its own: when its parent is killed it still writes a checkpoint.
LOCK_FILE, CHILD_LOCK_FILE = ".lock", ".lock-child"
LONGEST_HOLDER = 200


@contextlib.contextmanager
def alone_in(folder: Path, name: str = LOCK_FILE, say: Callable[[str], None] = print) -> Iterator[None]:
    """While the block runs no other process gets this far with the same folder, which is made if it isn't there.

    Raises `UserError`, which names the process that is at work there, and for a folder that can't be written. The
    lock is the process's: a killed one leaves none, and children don't inherit it. Where the file system knows no
    locks that is said, and the block runs without.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(f"{folder} can't be written ({plain(error)}): choose another with --out.") from None
    try:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise UserError(
                f"{folder}: {holder(file)} is training here; wait for its end or stop it, or choose another folder "
                f"with --out."
            ) from None
        except OSError as error:
            say(f"{folder} can't be locked ({plain(error)}): see that no second training is started there.")
        else:
            with contextlib.suppress(OSError):  # the lock holds on a full disk too
                os.ftruncate(file, 0)
                os.pwrite(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        yield
    finally:
        os.close(file)


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
