"""Where the regions of images are: which kinds of files are understood, and how each is opened. One entry a kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from albef.data.images import BadImage
from albef.data.lxmert_tsv import COLUMNS, LxmertTsv
from albef.data.oscar_tsv import LABELS, opened_tsv
from albef.data.region_table import RegionTable
from albef.data.regions import ImageRegions, RegionFolder, RegionStore, check_width, path_of
from albef.data.tsv_rows import first_rows
from albef.data.uniter_lmdb import UniterLmdb
from albef.errors import UserError

BESIDE = (
    *LABELS,
    "nbb_*.json",
)  # OSCAR's tags and UNITER's numbers of regions, beside a file or in the folder above
DEPTHS = ("", "*/", "*/*/")  # of files below the folder that data.regions names


class RegionFile(Protocol):
    """A file with the regions of many images. A data worker gets it as a pickle and opens it itself."""

    file: Path

    def key(self, image: Path) -> str | None:
        """What the file calls an image. None if it is not in it."""

    def read(self, key: str) -> ImageRegions:
        """The regions of an image. Raises `BadImage` if they are broken."""


class RegionFiles:
    """Files with the regions of many images. An image is looked for in all of them, by its name."""

    def __init__(self, place: Path, files: Sequence[RegionFile], width: int) -> None:
        self.place = place
        self.files = files
        self.width = width  # of features

    def has(self, image: Path) -> bool:
        """Whether a file has the image's name."""
        return any(file.key(image) is not None for file in self.files)

    def of(self, image: Path | np.ndarray) -> ImageRegions:
        """The regions of an image. Raises `BadImage` if no file has its name, or several have."""
        path = path_of(image)
        places = [(file, key) for file in self.files if (key := file.key(path)) is not None]
        if not places:
            raise BadImage(
                f"{path}: has no regions: nothing in {self.place} has its name; make them, or name the files that have "
                f"them with data.regions (--regions)."
            )
        if len(places) > 1:
            raise BadImage(
                f"{path}: has regions in {places[0][0].file} and in {places[1][0].file}; name one of them with "
                f"data.regions (--regions)."
            )
        file, key = places[0]
        found = file.read(key)
        check_width(found, self.width, f"{file.file}, {key}")
        return found


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
    """TSV files with regions. Others, such as those of labels, are passed over."""
    known = [found for file in files if (found := opened_table(file))]
    return RegionFiles(place, known, width) if known else None


def opened_table(file: Path) -> RegionFile | None:
    """A TSV file with regions, of the kind that its columns show. None if it has none."""
    first = next(first_rows(file))
    return LxmertTsv(file) if len(first) == len(COLUMNS) else opened_tsv(file)


def open_databases(place: Path, files: Sequence[Path], width: int) -> RegionStore:
    """UNITER's databases."""
    return RegionFiles(place, [UniterLmdb(file) for file in files], width)


KINDS = (
    Kind("a folder with an .npz for each image", "*.npz", open_folder),
    Kind("a Parquet file or a folder of them", "*.parquet", open_parquet),
    Kind("UNITER's folders with data.mdb", "data.mdb", open_databases),
    Kind("TSV files of LXMERT, OSCAR or VinVL", "*.tsv", open_tables),
)


def place_of(regions: str) -> Path:
    """The file or folder that `data.regions` names. Raises `UserError` if it is not there."""
    path = Path(os.path.expanduser(regions))
    if not path.exists():
        raise UserError(f"data.regions (--regions): {regions} does not exist; name {understood()}.")
    return path


def region_files(place: Path) -> dict[str, Path]:
    """The files that decide which regions are at a place, by names that do not depend on where it is."""
    if place.is_dir():
        own = {str(file.relative_to(place)): file for kind in KINDS for file in files_at(place, kind.names)}
    else:
        own = {"": place}
    folder = place if place.is_dir() else place.parent
    around = {
        file.name: file for above in (folder, folder.parent) for names in BESIDE for file in above.glob(names)
    }
    return around | own


def open_regions(place: str, width: int) -> RegionStore:
    """Where the regions of images are, with features of `width` numbers.

    `place` is a file of one of the `KINDS`, or a folder that holds such files, up to two folders below; the first kind
    that is there counts. Empty: there is an .npz beside each image.

    Raises `UserError` for anything else.
    """
    if not place:
        return RegionFolder(width)
    path = place_of(place)
    for kind in KINDS:
        files = files_at(path, kind.names)
        store = kind.opened(path, files, width) if files else None
        if store is not None:
            return store
    raise UserError(
        f"data.regions (--regions): {place} holds no regions of a known kind; name {understood()}."
    )


def files_at(place: Path, names: str) -> list[Path]:
    """The files of these names at a place: itself, or what is in the folder, up to two folders below."""
    if not place.is_dir():
        return [place] if place.is_file() and place.match(names) else []
    return sorted(file for depth in DEPTHS for file in place.glob(depth + names) if file.is_file())


def understood() -> str:
    """The kinds of files that can be opened, as words."""
    *others, last = (kind.title for kind in KINDS)
    return f"{', '.join(others)} or {last}"
