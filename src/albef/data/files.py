"""Finds the images below a folder. Their content decides. Files that are left out are counted, with the reason."""

from __future__ import annotations

import mimetypes
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from albef.data.formats import SUFFIXES, image_format, start_of, why_unread
from albef.data.records import LeftOut

# Folders whose images are not searched: trash, thumbnails, folders of the operating system, and all whose names begin
# with a dot. If the user names such a folder itself, its images are used.
ASIDE = {
    "@eadir",
    "@recycle",
    "@recently-snapshot",
    "#recycle",
    "#snapshot",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "lost+found",
    "__macosx",
    "thumbnails",
    "thumbs",
}
# Raw files of cameras: TIFF files that begin with a small preview.
RAW = {
    ".3fr",
    ".arw",
    ".cr2",
    ".dcr",
    ".dng",
    ".erf",
    ".iiq",
    ".kdc",
    ".mef",
    ".mos",
    ".nef",
    ".nrw",
    ".orf",
} | {".pef", ".raf", ".rw2", ".sr2", ".srf", ".srw"}
BY_ENDING = {".heic": "HEIF", ".heif": "HEIF", ".hif": "HEIF", ".avif": "AVIF"}

# Reasons to leave something out. In messages they follow the number of images.
IN_ASIDE = (
    "in hidden folders, waste baskets and folders of thumbnails (name such a folder to have its images)"
)
HIDDEN = "with a hidden name"
LOST = "behind links that lead nowhere"
NO_FILE = "that are pipes, sockets or devices"
CLOSED = "that can't be opened, files or folders"
AGAIN = "that are there under another name"

Identity = tuple[int, int | str]  # device, and inode number or path
_TYPES = mimetypes.MimeTypes()  # Python's own list, the same on every machine


class Found(NamedTuple):
    """The files below a folder, as sorted names such as "deep/a.jpg"."""

    images: list[str]
    texts: list[str]  # all that end in .txt
    left_out: list[LeftOut]


def found_below(folder: Path, entered: set[Identity] | None = None) -> Found:
    """The images and texts in and below a folder, behind links too, and files that look like images but are left out.

    Each folder is entered once, and each image comes once, however many links lead to it. Files with an image's ending
    are not opened. Files with an unknown ending are opened for their first bytes. Files with another known ending are
    ignored. `entered` holds the folders entered before (device and inode number). This search adds its own.
    """
    entered = set() if entered is None else entered
    found = Found([], [], [])
    links: set[str] = set()  # of the images
    # To enter; links after all else, so that a file has its own name where it has one.
    folders: list[str] = [""]
    linked: list[str] = []
    while folders or linked:
        below = folders.pop() if folders else linked.pop()
        try:
            listing = _entries(folder / below, entered)
        except OSError:
            found.left_out.append(LeftOut(below or ".", CLOSED))
            continue
        for entry in listing:
            name = f"{below}/{entry.name}" if below else entry.name
            if _is(entry, os.DirEntry.is_dir):
                if _searched(entry):
                    (linked if entry.is_symlink() else folders).append(name)
                else:
                    found.left_out.extend(
                        LeftOut(f"{name}/{image}", IN_ASIDE) for image in _images_in(entry.path)
                    )
            elif entry.name.lower().endswith(".txt"):
                if _is(entry, os.DirEntry.is_file):
                    found.texts.append(name)
            elif reason := _why_left_out(entry):
                found.left_out.append(LeftOut(name, reason))
            elif reason is None:
                found.images.append(name)
                if entry.is_symlink():
                    links.add(name)
    images = _each_once(folder, found.images, links, found.left_out) if links else found.images
    return Found(sorted(images), sorted(found.texts), sorted(found.left_out, key=lambda one: one.origin))


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted, without those whose images are not searched.

    Raises `OSError` if it cannot be read.
    """
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if _is(entry, os.DirEntry.is_dir) and _searched(entry))


def summary(left_out: Iterable[LeftOut]) -> str:
    """A sentence with what was left out and why. Empty if nothing was."""
    counts = Counter(one.reason for one in left_out).most_common()
    each = "; ".join(f"{count:,} {reason}" for reason, count in counts)
    return f"Left out: {each}." if each else ""


def _entries(folder: Path, entered: set[Identity]) -> list[os.DirEntry[str]]:
    """The content of a folder. Empty if it was entered before, by any name."""
    key = _identity(folder)
    if key in entered:
        return []
    entered.add(key)
    with os.scandir(folder) as entries:
        return list(entries)


def _identity(path: Path) -> Identity:
    """An identity that all names of a file or folder share. Raises `OSError` if there is nothing of this name."""
    status = os.stat(path)
    # Some disks of other systems number nothing.
    return (status.st_dev, status.st_ino) if status.st_ino else (status.st_dev, os.path.realpath(path))


def _searched(folder: os.DirEntry[str]) -> bool:
    """Whether the images in and below a folder are used."""
    return not folder.name.startswith(".") and folder.name.lower() not in ASIDE


def _why_left_out(entry: os.DirEntry[str]) -> str | None:
    """None for an image, the reason for a file that looks like one but is left out, and "" for all others."""
    ending = os.path.splitext(entry.name)[1].lower()
    is_image = ending in SUFFIXES
    if not is_image and (entry.name.startswith(".") or _is_known_otherwise(ending)):
        return ""
    if not _is(entry, os.DirEntry.is_file):
        return LOST if entry.is_symlink() else NO_FILE if is_image else ""
    hidden = entry.name.startswith(".")
    if is_image and not hidden:
        return why_unread(BY_ENDING[ending]) if ending in BY_ENDING else None
    try:
        start = start_of(entry.path)
    except OSError:
        return CLOSED
    kind = image_format(start)
    if kind == "TIFF" and ending in RAW:
        kind = "raw photograph"
    if kind is None or ending == ".thm":
        return ""
    return HIDDEN if hidden else why_unread(kind)


def _is_known_otherwise(ending: str) -> bool:
    """Whether the ending belongs to something else than an image: a video, a text, an archive."""
    kind = _TYPES.types_map[True].get(ending, "image/")
    return not kind.startswith("image/") or ending in _TYPES.encodings_map


def _is(entry: os.DirEntry[str], what: Callable[[os.DirEntry[str]], bool]) -> bool:
    """The result of a check of an entry or its link target. False if access is denied."""
    try:
        return what(entry)
    except OSError:
        return False


def _images_in(folder: str) -> list[str]:
    """The files with an image's ending in a folder that is not searched, by their names from there."""
    return [
        os.path.relpath(os.path.join(inside, name), folder).replace(os.sep, "/")
        for inside, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")
    ]


def _each_once(folder: Path, images: list[str], links: set[str], left_out: list[LeftOut]) -> list[str]:
    """The images without duplicates: links to another image of the list, or to the same file, are removed."""
    kept: dict[Identity | str, str] = {}
    for name in sorted(images, key=lambda name: name in links):  # files before links
        try:
            key = _identity(folder / name)
        except OSError:  # deleted meanwhile: a bad sample later
            kept[name] = name
            continue
        if name in links and key in kept:
            left_out.append(LeftOut(name, AGAIN))
        else:  # hard links count as separate files
            kept[key if key not in kept else name] = name
    return list(kept.values())
