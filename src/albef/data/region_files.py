"""Where the regions of images are: which kinds of files are understood, and how each is opened. One entry a kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from albef.data.images import BadImage
from albef.data.lxmert_tsv import COLUMNS, LxmertTsv
from albef.data.region_table import RegionTable
from albef.data.regions import ImageRegions, RegionFolder, RegionStore, check_width, path_of
from albef.data.tsv_rows import num_columns
from albef.errors import UserError

DEPTHS = ("", "*/", "*/*/")  # of files below the folder that data.regions names


class RegionFile(Protocol):
    """A file with the regions of many images."""

    def find(self, image: Path) -> ImageRegions | None:
        """The regions of an image. None if they are not in the file; raises `BadImage` if they are broken."""


class RegionFiles:
    """Files with the regions of many images. An image is looked for in one after the other."""

    def __init__(self, place: Path, files: Sequence[RegionFile], width: int) -> None:
        self.place = place
        self.files = files
        self.width = width  # of features

    def of(self, image: Path | np.ndarray) -> ImageRegions:
        """The regions of an image, which is found by its name."""
        path = path_of(image)
        for file in self.files:
            found = file.find(path)
            if found is not None:
                check_width(found, self.width, f"{self.place}, image {path.stem}")
                return found
        raise BadImage(
            f"{path}: has no regions: no row of {self.place} has its name; make them, or name the files that have them "
            f"with data.regions."
        )


class Kind(NamedTuple):
    """A kind of files with regions."""

    title: str  # for messages
    names: str  # of its files, as a pattern
    opened: Callable[
        [Path, Sequence[Path], int], RegionStore | None
    ]  # None: they are of no such kind after all


def open_folder(place: Path, files: Sequence[Path], width: int) -> RegionStore | None:
    """Files for one image each. They stand in the folder itself."""
    return RegionFolder(width, place) if any(file.parent == place for file in files) else None


def open_parquet(place: Path, files: Sequence[Path], width: int) -> RegionStore | None:
    """A Parquet file, or those of a folder."""
    here = place.is_file() or any(file.parent == place for file in files)
    return RegionTable(place, width) if here else None


def open_tables(place: Path, files: Sequence[Path], width: int) -> RegionStore | None:
    """TSV files, whose kind follows from the number of their columns."""
    known = [TABLES[columns](file) for file in files if (columns := num_columns(file)) in TABLES]
    return RegionFiles(place, known, width) if known else None


TABLES: dict[int, Callable[[Path], RegionFile]] = {len(COLUMNS): LxmertTsv}
KINDS = (
    Kind("a folder with an .npz for each image", "*.npz", open_folder),
    Kind("a Parquet file or a folder of them", "*.parquet", open_parquet),
    Kind("LXMERT's .tsv files", "*.tsv", open_tables),
)


def open_regions(place: str, width: int) -> RegionStore:
    """Where the regions of images are, with features of `width` numbers.

    `place` is a file of one of the `KINDS`, or a folder that holds such files, up to two folders below; the first kind
    that is there counts. Empty: there is an .npz beside each image.

    Raises `UserError` for anything else.
    """
    if not place:
        return RegionFolder(width)
    path = Path(os.path.expanduser(place))
    if not path.exists():
        raise UserError(f"data.regions: {place} does not exist; name {understood()}.")
    for kind in KINDS:
        files = files_at(path, kind.names)
        store = kind.opened(path, files, width) if files else None
        if store is not None:
            return store
    raise UserError(f"data.regions: {place} holds no regions of a known kind; name {understood()}.")


def files_at(place: Path, names: str) -> list[Path]:
    """The files of these names at a place: itself, or what is in the folder, up to two folders below."""
    if not place.is_dir():
        return [place] if place.match(names) else []
    return sorted(file for depth in DEPTHS for file in place.glob(depth + names) if file.is_file())


def understood() -> str:
    """The kinds of files that can be opened, as words."""
    *others, last = (kind.title for kind in KINDS)
    return f"{', '.join(others)} or {last}"
