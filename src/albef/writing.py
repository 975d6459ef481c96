"""Files and folders that are as they were or as they shall be, and nothing between: how everything is written.

What is being written lies in a hidden folder beside its place, `.NAME.writing`, which holds a lock. It is brought to
the disk, and takes its place at once. What a killed process left there is removed by the next that writes there.
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
STANDARD_OUTPUT = Path("-")  # as people name it
# What systems leave in every folder that is looked at: nobody's, and in nobody's way.
LITTER = frozenset({".DS_Store", ".directory", "desktop.ini", "Thumbs.db"})
LONGEST_NAME = 200  # bytes; file systems take 255, of which the hidden folder needs some
BUSY = "is writing it; wait for its end, or choose another place."
HERE, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux

_in_use: set[Path] = set()  # folders of other threads, whom the lock of their process does not keep out


@contextlib.contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """A path to write to, which takes the place of `file` once the block has ended well.

    Where `file` is a link, what it leads to is replaced; where it is a device or a pipe, it is written itself. Raises
    `UserError` when it can't be written: a folder, a full disk.
    """
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
    """A new folder to write into, which takes the place of `folder`, with a manifest, once the block has ended well.

    What was there is removed, if it holds `known` files alone: somebody's images are not what to replace. Raises
    `UserError` for any other folder, for one that another process is writing, and when it can't be written. Without
    a `hash_name` there is no manifest.
    """
    target = place_of(folder)
    with told(folder, target):
        check_replaceable(folder, target, known)
        # An empty folder is filled, not replaced: somebody may stand in it, and it may be a disk of its own.
        filled = target.is_dir() and not entries(target)
        with workplace(folder, target, target if filled else target.parent) as temporary:
            temporary.mkdir()
            yield temporary
            if hash_name:
                write_manifest(temporary, hash_name, facts or {})
            sync_all(temporary)
            check_replaceable(folder, target, known)  # hours may have passed
            if filled:
                # The manifest comes last: without it nothing claims to be whole.
                for entry in sorted(temporary.iterdir(), key=lambda entry: entry.name == MANIFEST_FILE):
                    entry.replace(target / entry.name)
                sync(target)
            elif target.exists():
                exchange(temporary, target)
            else:
                temporary.rename(target)
            sync(target.parent)


def write_whole(file: Path, content: str | bytes) -> None:
    """Writes a file, whole or not at all; text as UTF-8, odd bytes of file names by their numbers."""
    data = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
    with whole_file(file) as temporary:
        temporary.write_bytes(data)


def write_json(file: Path, content: object) -> None:
    """Writes a JSON file, whole or not at all; `STANDARD_OUTPUT` is printed."""
    text = json.dumps(content, indent=1)
    if file == STANDARD_OUTPUT:
        print(text, flush=True)
    else:
        write_whole(file, f"{text}\n")


def append_whole(file: Path, text: str) -> None:
    """Adds lines to a text file; raises `OSError` where there is no room, and leaves the file as it was."""
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
    """Writes to a file without a buffer; raises `OSError` where only a part of it found room."""
    if handle.write(data) < len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def check_file(*files: Path | None, inputs: Iterable[str | Path | None] = ()) -> None:
    """Raises `UserError` where a file can't be written, before hours are spent on it. Makes the folders they lie in.

    Nor may it be one of the command's `inputs`, another's place, or a part of a model, an index or a checkpoint.
    """
    taken = {place_of(Path(file)): "read by this command" for file in inputs if file and os.path.isfile(file)}
    for file in files:
        if file is None or file == STANDARD_OUTPUT or is_stream(file):
            continue
        target = place_of(file)
        with told(file, target):
            refuse_folder(file, target)
            if use := taken.get(target) or ("a part of the folder that it is in" if is_part(target) else ""):
                raise UserError(f"{file}: is {use}, and would be lost; name another file.")
            taken[target] = "named for another result"
            with workplace(file, target, target.parent, wait=True):
                pass


def check_folder(folder: Path, known: Collection[str] = ()) -> None:
    """Raises `UserError` where `whole_folder` would, before hours are spent on what it is to hold."""
    target = place_of(folder)
    with told(folder, target):
        check_replaceable(folder, target, known)
        filled = target.is_dir() and not entries(target)
        with workplace(folder, target, target if filled else target.parent):
            pass


def place_of(path: Path) -> Path:
    """Where a path leads: absolute, with a name, through links."""
    try:
        if b"\0" in os.fsencode(path):
            raise ValueError
        found = Path(os.path.realpath(path))
    except ValueError:
        raise UserError(f"{str(path)!r}: no file can have this name; choose another.") from None
    if not found.name:
        raise UserError(f"{path}: is the root of the disk; name a file or a folder in it.")
    return found


def is_stream(file: Path) -> bool:
    """Whether it is a device or a pipe, such as /dev/stdout, which can't be replaced."""
    try:
        return file.exists() and not file.is_file() and not file.is_dir()
    except (OSError, ValueError):
        return False


def refuse_folder(file: Path, target: Path) -> None:
    """Raises `UserError` where a folder is in the place of a file."""
    if target.is_dir():
        raise UserError(f"{file}: is a folder, where a file is to be written; name a file in it.")


def is_part(file: Path) -> bool:
    """Whether a file belongs to a folder that was written as a whole."""
    with contextlib.suppress(Damaged):
        return file.name in {*read_manifest(file.parent).files, MANIFEST_FILE} and file.exists()
    return False


def check_replaceable(folder: Path, target: Path, known: Collection[str]) -> None:
    """Raises `UserError` for a folder that can't be replaced as a whole, or whose content is not ours to remove."""
    if target.exists() and not target.is_dir():
        raise UserError(f"{folder}: is a file, which would be overwritten; choose a new or an empty folder.")
    held = entries(target) if target.is_dir() else []
    if others := [name for name in held if name not in {*known, MANIFEST_FILE} or not known]:
        what = f"holds {others[0]}, which would be overwritten" if known else "is not empty"
        raise UserError(f"{folder}: {what}; choose a new or an empty folder.")
    if held and os.path.ismount(target):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(target))
    with contextlib.suppress(OSError):  # the folder that one stands in may be gone
        if held and (Path.cwd() == target or target in Path.cwd().parents):
            raise UserError(
                f"{folder}: can't be replaced while you are in it; go to the folder above, and name it."
            )


def entries(folder: Path) -> list[str]:
    """What a folder holds beside what is being written into it, and litter."""
    return sorted({entry.name for entry in folder.iterdir()} - LITTER - {hidden(folder.name)})


def hidden(name: str) -> str:
    """The name of the folder where something of that name is written."""
    written = os.fsencode(name)
    return f".{name if len(written) <= LONGEST_NAME else xxhash.xxh3_64_hexdigest(written)}.writing"


@contextlib.contextmanager
def workplace(what: Path, target: Path, beside: Path, wait: bool = False) -> Iterator[Path]:
    """A path that nobody else writes to, of the name of `target`, on the same disk; gone at the end."""
    place = beside / hidden(target.name)
    if place.is_file():  # left by a killed process of an earlier release
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
    """Removes what killed processes left; brings back the old folder where one was killed between two renames."""
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
    """Gives each of two folders the name of the other, at once where the system can."""
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
    """Brings a file, or the names in a folder, to the disk itself."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno != errno.EINVAL:  # of file systems that know no such thing
            raise
    finally:
        os.close(number)


def sync_all(folder: Path) -> None:
    """Brings all that is in a folder to the disk itself."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
