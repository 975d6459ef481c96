"""Which files below a folder are images of it: what decides is their content; what is left out is counted, and why."""

from __future__ import annotations

import mimetypes
import os
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from albef.data.formats import SUFFIXES, image_format, start_of, why_unread
from albef.data.records import LeftOut

# Folders that hold no images of the folder that they are in: waste baskets, thumbnails, what a system keeps for itself.
# So do all whose name begins with a dot. Who names one has its images.
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
# Cameras' own files are TIFF with a small image before the photograph.
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

# Why something is left out, after the number of images.
IN_ASIDE = (
    "in hidden folders, waste baskets and folders of thumbnails (name such a folder to have its images)"
)
HIDDEN = "with a hidden name"
LOST = "behind links that lead nowhere"
NO_FILE = "that are pipes, sockets or devices"
CLOSED = "that can't be opened, files or folders"
AGAIN = "that are there under another name"

Identity = tuple[int, int | str]  # device, and number or path
_TYPES = mimetypes.MimeTypes()  # Python's own list, the same on every machine


class Found(NamedTuple):
    """The files below a folder, by names such as "deep/a.jpg" and in their order."""

    images: list[str]
    texts: list[str]  # all that end in .txt
    left_out: list[LeftOut]


def found_below(folder: Path, entered: set[Identity] | None = None) -> Found:
    """The images and texts in a folder and below it, behind links too, and what looks like images and is left out.

    Each folder is entered once and each image is there once, whatever links lead to it. Files whose ending says that
    they are images are not opened; those whose ending says nothing are, for their first bytes; those whose ending
    says that they are something else are not looked at. `entered`: folders that were entered before, by device and
    number; those of this search are added.
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
                if not entry.name.startswith(".") and entry.name.lower() not in ASIDE:
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


def summary(left_out: Iterable[LeftOut]) -> str:
    """What was left out and why, in a sentence; empty when nothing was."""
    counts = Counter(one.reason for one in left_out).most_common()
    each = "; ".join(f"{count:,} {reason}" for reason, count in counts)
    return f"Left out: {each}." if each else ""


def _entries(folder: Path, entered: set[Identity]) -> list[os.DirEntry[str]]:
    """What is in a folder; nothing when it has been entered before, by this or another name."""
    key = _identity(folder)
    if key in entered:
        return []
    entered.add(key)
    with os.scandir(folder) as entries:
        return list(entries)


def _identity(path: Path) -> Identity:
    """What is the same for all names of a file or folder; raises `OSError` where nothing is."""
    status = os.stat(path)
    # Some disks of other systems number nothing.
    return (status.st_dev, status.st_ino) if status.st_ino else (status.st_dev, os.path.realpath(path))


def _why_left_out(entry: os.DirEntry[str]) -> str | None:
    """None for an image, the reason for what looks like one and is left out, and "" for other things."""
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
    """Whether a file with this ending is something else than an image: a film, a text, an archive."""
    kind = _TYPES.types_map[True].get(ending, "image/")
    return not kind.startswith("image/") or ending in _TYPES.encodings_map


def _is(entry: os.DirEntry[str], what: Callable[[os.DirEntry[str]], bool]) -> bool:
    """Whether an entry, or what it leads to, is that; False where nobody may know."""
    try:
        return what(entry)
    except OSError:
        return False


def _images_in(folder: str) -> list[str]:
    """The files with the ending of an image in a folder that is not entered, as they are named from there."""
    return [
        os.path.relpath(os.path.join(inside, name), folder).replace(os.sep, "/")
        for inside, _, names in os.walk(folder)
        for name in names
        if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")
    ]


def _each_once(folder: Path, images: list[str], links: set[str], left_out: list[LeftOut]) -> list[str]:
    """The images without links to others of them, and without further links to the same file."""
    kept: dict[Identity | str, str] = {}
    for name in sorted(images, key=lambda name: name in links):  # files before links
        try:
            key = _identity(folder / name)
        except OSError:  # gone since: a bad sample later
            kept[name] = name
            continue
        if name in links and key in kept:
            left_out.append(LeftOut(name, AGAIN))
        else:  # a file with two names of its own is two
            kept[key if key not in kept else name] = name
    return list(kept.values())
