"""The free space of a disk, and reasons in words why something cannot be written."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from safetensors import SafetensorError

from albef.errors import UserError
from albef.manifest import plain

HIDDEN = re.compile(r"\..+\.writing")  # folders in which something is being written

# The system's error number → why something cannot be written, and what to do.
REASONS = {
    errno.ENOSPC: "the disk is full; make room on it, or choose another place",
    errno.EDQUOT: "your share of that disk is used up; make room in it, or choose another place",
    errno.EFBIG: "a file may not grow that large there (see ulimit -f); raise the limit, or choose another disk",
    errno.EROFS: "that disk can only be read; choose another place",
    errno.EACCES: "you may not write there; choose another place, or ask for the permission",
    errno.EPERM: "you may not write there; choose another place, or ask for the permission",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.ENOTDIR: "a part of the path is a file, not a folder; choose another place",
    errno.EISDIR: "it is a folder; name a file in it",
    errno.ENOENT: "its folder can't be made or is gone; choose another place",
    errno.ELOOP: "a part of the path is a link that leads back to itself; choose another place",
    errno.EIO: "the disk reported a fault; choose another disk",
    errno.ENODEV: "there is no such device any more; choose another place",
    errno.EBUSY: "it is in use, as a place where a disk is mounted is; choose a new folder in it",
    errno.EXDEV: "it is a disk of its own; choose a new folder in it",
}


def check_room(place: Path, needed: int) -> None:
    """Raises `UserError` if the disk of a file or folder has fewer free bytes. The place need not exist yet."""
    free = free_bytes(place)
    if free is not None and needed > free:
        raise UserError(
            f"{place}: needs {size(needed)}, but its disk has only {size(free)} free. Make room on it, or choose "
            f"another place."
        )


def free_bytes(place: Path) -> int | None:
    """Free bytes for this user on the disk of a place, which need not exist yet. None if unknown."""
    for folder in (place.absolute(), *place.absolute().parents):
        try:
            return shutil.disk_usage(folder).free
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            break
    return None


def size(number: float) -> str:
    """A number of bytes for readers."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.0f} {unit}" if unit == "bytes" or number >= 100 else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


@contextlib.contextmanager
def told(what: Path | str, target: Path) -> Iterator[None]:
    """Turns errors of writing `what`, which is at `target`, into a `UserError`."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        fault = beneath(error)
        if fault is None or not is_of_writing(fault, target):
            raise
        raise UserError(f"{what}: can't be written: {reason_of(fault, target)}.") from error


def beneath(error: BaseException | None) -> OSError | SafetensorError | None:
    """The system's error, which torch may hide behind an error of its own."""
    while error is not None and not isinstance(error, OSError | SafetensorError):
        error = error.__context__
    return error


def is_of_writing(error: OSError | SafetensorError, target: Path) -> bool:
    """Whether an error comes from writing `target`, not from reading something or from a closed terminal."""
    if isinstance(error, SafetensorError):
        return "os error" in str(error)
    if isinstance(error.filename, str | bytes):
        path = Path(os.fsdecode(error.filename))
        return path == target or path in target.parents or any(HIDDEN.fullmatch(part) for part in path.parts)
    return error.errno is None or error.errno in REASONS


def reason_of(error: OSError | SafetensorError, target: Path) -> str:
    """Why something cannot be written, and what to do, in words."""
    code = error.errno if isinstance(error, OSError) else None
    if code is None:  # some libraries only give the system's number in their text
        found = re.search(r"os error (\d+)", str(error))
        code = int(found[1]) if found else None
    if code is None and (free_bytes(target) or 0) < 2**20:
        code = errno.ENOSPC
    return REASONS.get(code or 0, f"the system says: {plain(error)}; choose another place")
