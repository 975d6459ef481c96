"""How everything is written: a file or folder is always either the old or the new one, never half of it.

New content is written into a hidden folder beside its place, `.NAME.writing`, which holds a lock. It is flushed to disk
and then takes its place in one step. If a process is killed, the next writer removes what it left.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import io
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash

from albef.config import UserError
from albef.disk import told
from albef.lock import locked
from albef.manifest import MANIFEST_FILE, Damaged, HashName, read_manifest, write_manifest

LOCK_FILE = "lock"
STANDARD_OUTPUT = Path("-")  # as users write it
# Files that operating systems put into folders. They may be removed.
LITTER = frozenset({".DS_Store", ".directory", "desktop.ini", "Thumbs.db"})
LONGEST_NAME = 200  # bytes; file systems allow 255, and the hidden folder's name is longer
BUSY = "is writing it; wait for its end, or choose another place."
HERE, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux

_in_use: set[Path] = set()  # of this process, in all threads: a lock only keeps other processes out


@contextlib.contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A temporary path to write to. It replaces `file` when the block ends without error.

    If `file` is a link, its target is replaced. A device or pipe is written directly, and so is a file of a folder that
    `whole_folder` makes. Raises `UserError` if the file cannot be written: it is a folder, the disk is full, and so on.
    """
    if _in_use.intersection(file.parents):  # errors are then those of the folder
        yield file
        return
    if is_stream(file):
        with told(file, file):
            yield file
        return
    target = place_of(file)
    with told(file, target):
        refuse_folder(file, target)
        with workplace(file, target, target.parent, wait=True) as temporary:
            yield temporary
            sync(temporary)
            temporary.replace(target)
            sync(target.parent)


@contextlib.contextmanager
def whole_folder(
    folder: Path,
    known: Collection[str] = (),
    hash_name: HashName | None = "sha256",
    facts: Mapping[str, Any] | None = None,
) -> Iterator[Path]:
    """A temporary folder to write into. It replaces `folder`, with a manifest, when the block ends without error.

    An existing folder is replaced only if all its files are `known`, so that nothing else is lost. Raises `UserError`
    for any other folder, for one that another process is writing, and if it cannot be written. Without a `hash_name`
    there is no manifest.
    """
    target = place_of(folder)
    with told(folder, target):
        check_replaceable(folder, target, known)
        # An empty folder is filled, not replaced: it may be a mounted disk, or somebody's current folder.
        filled = target.is_dir() and not entries(target)
        with workplace(folder, target, target if filled else target.parent) as temporary:
            temporary.mkdir()
            yield temporary
            if hash_name:
                write_manifest(temporary, hash_name, facts or {})
            sync_all(temporary)
            check_replaceable(folder, target, known)  # hours may have passed
            if filled:
                # The manifest comes last: a folder without it does not count as whole.
                for entry in sorted(temporary.iterdir(), key=lambda entry: entry.name == MANIFEST_FILE):
                    entry.replace(target / entry.name)
                sync(target)
            elif target.exists():
                exchange(temporary, target)
            else:
                temporary.rename(target)
            sync(target.parent)


def write_whole(file: Path, content: str | bytes) -> None:
    """Writes a file, whole or not at all. Text is UTF-8; other bytes in file names are written as escapes."""
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with whole_file(file) as temporary:
        temporary.write_bytes(data)


def write_json(file: Path, content: object) -> None:
    """Writes a JSON file, whole or not at all. `STANDARD_OUTPUT` prints it."""
    text = json.dumps(content, indent=1)
    if file == STANDARD_OUTPUT:
        print(text, flush=True)
    else:
        write_whole(file, f"{text}\n")


def append_whole(file: Path, text: str) -> None:
    """Appends lines to a text file. If there is no room, raises `OSError` and leaves the file as it was."""
    data = text.encode("utf-8", "backslashreplace")  # file names need not be UTF-8; JSON reads this as it was
    with file.open("ab", buffering=0) as handle:
        before = handle.seek(0, os.SEEK_END)
        try:
            write_all(handle, data)
        except OSError:
            with contextlib.suppress(OSError):
                handle.truncate(before)
            raise


def write_all(handle: io.FileIO, data: bytes | memoryview) -> None:
    """Writes to an unbuffered file. Raises `OSError` if only a part could be written."""
    if handle.write(data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def check_file(*files: Path | None, inputs: Iterable[str | Path | None] = ()) -> None:
    """Raises `UserError` now if a file cannot be written later, after hours of work. Creates the files' folders.

    Also raises it for a file that is one of the command's `inputs`, another output, or part of a model, an index or a
    checkpoint.
    """
    taken = {place_of(Path(file)): "read by this command" for file in inputs if file and os.path.isfile(file)}
    for file in files:
        if file is None or file == STANDARD_OUTPUT or is_stream(file):
            continue
        target = place_of(file)
        with told(file, target):
            refuse_folder(file, target)
            if use := taken.get(target) or ("a part of the folder that it is in" if is_part(target) else ""):
                raise UserError(f"{file}: is {use} and would be overwritten. Name another file.")
            taken[target] = "named for another result"
            with workplace(file, target, target.parent, wait=True):
                pass


def check_folder(folder: Path, known: Collection[str] = ()) -> None:
    """Raises `UserError` now if `whole_folder` would raise it later, after hours of work."""
    target = place_of(folder)
    with told(folder, target):
        check_replaceable(folder, target, known)
        filled = target.is_dir() and not entries(target)
        with workplace(folder, target, target if filled else target.parent):
            pass


def place_of(path: Path) -> Path:
    """The absolute path that a path leads to, through links. It always has a name."""
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError
        found = Path(os.path.realpath(path))
    except ValueError:
        raise UserError(f"{str(path)!r}: no file can have this name. Choose another.") from None
    if not found.name:
        raise UserError(f"{path}: is the root of the disk. Name a file or a folder in it.")
    return found


def is_stream(file: Path) -> bool:
    """Whether a path is a device or a pipe, such as /dev/stdout, which cannot be replaced."""
    try:
        return file.exists() and not file.is_file() and not file.is_dir()
    except (OSError, ValueError):
        return False


def refuse_folder(file: Path, target: Path) -> None:
    """Raises `UserError` if a folder is in the place of a file."""
    if target.is_dir():
        raise UserError(f"{file}: is a folder, but a file is written here. Name a file in it.")


def is_part(file: Path) -> bool:
    """Whether a file is part of a folder that has a manifest."""
    with contextlib.suppress(Damaged):
        return file.name in {*read_manifest(file.parent).files, MANIFEST_FILE} and file.exists()
    return False


def check_replaceable(folder: Path, target: Path, known: Collection[str]) -> None:
    """Raises `UserError` for a folder that cannot be replaced as a whole, or that holds unknown files."""
    if target.exists() and not target.is_dir():
        raise UserError(f"{folder}: is a file, which would be overwritten. Choose a new or an empty folder.")
    held = entries(target) if target.is_dir() else []
    if others := [name for name in held if name not in {*known, MANIFEST_FILE} or not known]:
        what = f"holds {others[0]}, which would be overwritten" if known else "is not empty"
        raise UserError(f"{folder}: {what}. Choose a new or an empty folder.")
    if held and os.path.ismount(target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(target))
    with contextlib.suppress(OSError):  # the current folder may be gone
        if held and (Path.cwd() == target or target in Path.cwd().parents):
            raise UserError(
                f"{folder}: cannot be replaced while you are in it. Go to the folder above and name it from there."
            )


def entries(folder: Path) -> list[str]:
    """The content of a folder, without temporary files and files of the operating system."""
    return sorted({entry.name for entry in folder.iterdir()} - LITTER - {hidden(folder.name)})


def hidden(name: str) -> str:
    """The name of the hidden folder in which something of this name is written."""
    written = os.fsencode(name)
    return f".{name if len(written) <= LONGEST_NAME else xxhash.xxh3_64_hexdigest(written)}.writing"


@contextlib.contextmanager
def workplace(what: Path, target: Path, beside: Path, wait: bool = False) -> Iterator[Path]:
    """A temporary path with the name of `target`, on the same disk, that nobody else writes to."""
    place = beside / hidden(target.name)
    if place.is_file():  # left by a killed process of an older version
        place.unlink()
    with locked(place / LOCK_FILE, what, BUSY, wait) as unlocked:
        own = place / secrets.token_hex(4)
        try:
            if not unlocked:
                clear(place, target)
            _in_use.add(own)
            (own / "new").mkdir(parents=True)
            yield own / "new" / target.name
        except KeyboardInterrupt:
            kept = "is as it was before" if target.exists() else "was not written"
            raise KeyboardInterrupt(f"{what} {kept}.") from None
        finally:
            shutil.rmtree(own, ignore_errors=True)
            _in_use.discard(own)
            with contextlib.suppress(OSError):
                if [entry.name for entry in place.iterdir()] == [LOCK_FILE]:
                    (place / LOCK_FILE).unlink()
                    place.rmdir()


def clear(place: Path, target: Path) -> None:
    """Removes what killed processes left. Restores the old folder if one was killed between two renames."""
    for left in sorted(place.iterdir()):
        if left.name == LOCK_FILE or left in _in_use:
            continue
        old = left / "old" / target.name
        if old.exists() and not target.exists():
            old.rename(target)
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def exchange(new: Path, old: Path) -> None:
    """Swaps two folders, in one step if the system can."""
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        rename = None
    if rename and rename(HERE, os.fsencode(new), HERE, os.fsencode(old), EXCHANGE) == 0:
        return
    aside = new.parent.with_name("old") / old.name  # where `clear` finds it
    aside.parent.mkdir()
    try:
        old.rename(aside)
        new.rename(old)
    except BaseException:
        if aside.exists():
            aside.rename(old)
        raise


def sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # file systems that cannot flush
            raise
    finally:
        os.close(number)


def sync_all(folder: Path) -> None:
    """Flushes everything in a folder to disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
