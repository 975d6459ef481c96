"""Writes the files of a prepared set, whole or not at all: rows with an image, and a list of missing images."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from albef.config import TaskName, UserError
from albef.data.prepare.reading import Row, find, search
from albef.data.regions import RegionStore
from albef.data.rows import columns

MISSING_FILE = "missing.txt"
FROM_RANDOM_WEIGHTS = ("own-data", "easy-vqa")  # recipes that need no model to start from
# Size of the cache of images already looked for. Sets that name images repeatedly have fewer images than this.
REMEMBERED = 1 << 18


@dataclass(frozen=True)
class Written:
    """A file of rows, and the number of rows left out since their image is missing."""

    name: str
    rows: int
    left_out: int


@dataclass(frozen=True)
class Training:
    """The recipe for a prepared set, and the set's files by the `data` setting that they belong to.

    An empty name removes a file that the recipe names but the set does not have.
    """

    recipe: str
    files: dict[str, str]

    def command(self, out: Path, image_root: Path, regions: str = "") -> str:
        """The next command to type. With `regions`, the recipe is one of a system that sees them."""
        paths = {name: str(out / file) if file else "" for name, file in self.files.items()}
        start = [] if self.recipe in FROM_RANDOM_WEIGHTS else ["--train.init=MODEL"]
        return shlex.join(
            ["albef", "train", "RECIPE" if regions else f"recipes/{self.recipe}.yaml", *start]
            + [f"--data.{name}={path}" for name, path in paths.items()]
            + [f"--data.image_root={image_root}"]
            + [f"--data.regions={regions}"] * bool(regions)
        )


@dataclass
class Files:
    """Writes the files of a set into a folder. Images are below `image_root`, or only their regions are there."""

    image_root: Path
    folder: Path
    regions: RegionStore | None = None  # what is there instead of images
    written: list[Written] = field(default_factory=list)
    missing: int = 0  # different images
    notes: list[str] = field(default_factory=list)  # further notes for the user

    def __post_init__(self) -> None:
        self.is_there = lru_cache(REMEMBERED)(self._look_for)

    def images(self, *names: str, origin: str) -> Path:
        """The folder of images with one of these names, from `image_root`. Where regions are there, it need not be.

        Raises `UserError` otherwise; it names the download (`origin`).
        """
        found = search(self.image_root, *names)
        if found is None and self.regions is not None:
            return Path(names[0])
        return (found or find(self.image_root, *names, origin=origin)).relative_to(self.image_root)

    def rows(self, name: str, task: TaskName, rows: Iterable[Row]) -> None:
        """Writes rows as a JSON list, or as an object per line if the name ends in .jsonl.

        Raises `UserError` for a row that the task's reader would refuse, and if no row's image is there.
        """
        lines = name.endswith(".jsonl")
        kept, left_out, looked_for = 0, 0, ""
        # Half a surrogate pair is possible in JSON but not in UTF-8. It becomes a question mark.
        with (self.folder / name).open("w", encoding="utf-8", errors="replace") as file:
            for where, row in rows:
                read = columns(row, task, where)
                images = [read["image"], *([read["second_image"]] if read["second_image"] else [])]
                missing = [image for image in images if not self.is_there(image)]
                if missing:
                    left_out, looked_for = left_out + 1, looked_for or missing[0]
                    continue
                separator = "" if lines else ",\n" if kept else "[\n"
                file.write(separator + json.dumps(row, ensure_ascii=False) + ("\n" if lines else ""))
                kept += 1
            if not lines:
                file.write("\n]\n")
        if not kept:
            raise UserError(self._nothing(name, left_out, looked_for))
        self.written.append(Written(name, kept, left_out))

    def _nothing(self, name: str, left_out: int, looked_for: str) -> str:
        """Why a file would have no rows."""
        if not left_out:
            return f"{name} would have no rows: the annotations of this split are empty."
        if self.regions is not None:
            return (
                f"--regions has no regions of {looked_for}, nor of any other image of the {left_out} rows of {name}; "
                f"name the files of these images."
            )
        return (
            f"{self.image_root / looked_for}: is not there, nor any other image of the {left_out} rows of {name}; "
            f"unpack the images there, or correct --from."
        )

    def document(self, name: str, value: object) -> None:
        """Writes any other value as JSON."""
        (self.folder / name).write_text(json.dumps(value, ensure_ascii=False), "utf-8", errors="replace")

    def _look_for(self, image: str) -> bool:
        path = self.image_root / image
        try:
            if self.regions is not None:
                there = self.regions.has(path)
            else:
                there = path.is_file() and path.stat().st_size > 0
        except OSError:  # a folder without permission
            there = False
        if not there:
            self.missing += 1
            with (self.folder / MISSING_FILE).open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{image}\n")
        return there
