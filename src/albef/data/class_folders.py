"""Images sorted into folders by class: the name of a folder is the name of its class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from albef.config import UserError
from albef.data.files import Identity, folders_in, found_below, summary
from albef.errors import printable

ONE_EACH = "give a folder with a folder of images for each class"
NAMED = 5  # folders without images, in a note


@dataclass(frozen=True)
class ClassFolders:
    """The images of all classes, class by class."""

    names: Sequence[str]  # of the classes
    images: Sequence[Path]
    labels: Sequence[int]  # the class of each image
    notes: Sequence[str]  # sentences about what is not used


def class_folders(folder: Path) -> ClassFolders:
    """The classes of a folder: each folder in it is one, with all images in and below it.

    The name of a class is that of its folder, with spaces for underscores. Folders of one name are one class. Folders
    without images are left out. Raises `UserError` for fewer than two classes.
    """
    try:
        inside = folders_in(folder)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read as a folder ({error.strerror}); {ONE_EACH}.") from None
    images: dict[str, list[Path]] = {}
    entered: set[Identity] = set()
    left_out, empty = [], []
    for name in inside:
        found = found_below(folder / name, entered)
        images.setdefault(class_name(name), []).extend(folder / name / image for image in found.images)
        left_out += found.left_out
        empty += [] if found.images else [printable(name)]
    names = [name for name, own in images.items() if own]
    beside = found_below(folder, entered)  # the folders of classes are not entered again
    left_out += beside.left_out
    notes = []
    if empty:
        more = ", …" if len(empty) > NAMED else ""
        notes.append(f"Folders without images ({len(empty):,}): {', '.join(empty[:NAMED])}{more}.")
    if beside.images:
        notes.append(f"Images in no class's folder ({len(beside.images):,}).")
    if left_out:
        notes.append(summary(left_out))
    if len(names) < 2:
        folders = "1 folder" if names else "0 folders"
        raise UserError(
            " ".join([f"{folder}: has {folders} with images, too few to choose; {ONE_EACH}.", *notes])
        )
    return ClassFolders(
        names,
        [image for name in names for image in images[name]],
        [label for label, name in enumerate(names) for _ in images[name]],
        [f"{folder}: {note[0].lower()}{note[1:]}" for note in notes],
    )


def class_name(folder: str) -> str:
    """The name of the class of a folder."""
    text = os.fsencode(folder).decode("utf-8", "replace")  # file names are bytes and not always UTF-8
    return " ".join(text.replace("_", " ").split()) or text
