"""The files of a prepared set: rows whose images are there, missing images listed, all or nothing."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from albef.config import TaskName, UserError
from albef.data.prepare.reading import Row
from albef.data.rows import columns

MISSING_FILE = "missing.txt"
FROM_RANDOM_WEIGHTS = ("own-data", "easy-vqa")  # recipes of prepared sets that need no model to start from
# Sets that name an image more than once have fewer images than this, so that each is looked for once.
REMEMBERED = 1 << 18


@dataclass(frozen=True)
class Written:
    """A file of rows, and how many were left out because their image is missing."""

    name: str
    rows: int
    left_out: int


@dataclass(frozen=True)
class Training:
    """The recipe that trains on a prepared set, and the set's files by the `data` setting that names them.

    An empty name takes away a file that the recipe has and the set has not.
    """

    recipe: str
    files: dict[str, str]

    def command(self, out: Path, image_root: Path) -> str:
        """What to type next."""
        paths = {name: str(out / file) if file else "" for name, file in self.files.items()}
        start = [] if self.recipe in FROM_RANDOM_WEIGHTS else ["--train.init=MODEL"]
        return shlex.join(
            ["albef", "train", f"recipes/{self.recipe}.yaml", *start]
            + [f"--data.{name}={path}" for name, path in paths.items()]
            + [f"--data.image_root={image_root}"]
        )


@dataclass
class Files:
    """Writes the files of one set into a folder; images are below `image_root`."""

    image_root: Path
    folder: Path
    written: list[Written] = field(default_factory=list)
    missing: int = 0  # different images
    notes: list[str] = field(default_factory=list)  # what a user should know besides

    def __post_init__(self) -> None:
        self.is_there = lru_cache(REMEMBERED)(self._look_for)

    def rows(self, name: str, task: TaskName, rows: Iterable[Row]) -> None:
        """Writes a JSON list, or an object a line if the name ends in .jsonl, row by row.

        Raises `UserError` for a row that the task's reader would refuse, and if no row has its image.
        """
        lines = name.endswith(".jsonl")
        kept, left_out, looked_for = 0, 0, ""
        # Half of a surrogate pair, which JSON can hold and UTF-8 cannot, becomes a question mark.
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
            raise UserError(
                f"{self.image_root / looked_for}: is not there, nor any other image of the {left_out} rows of "
                f"{name}; unpack the images there, or correct --from."
                if left_out
                else f"{name} would have no rows: the annotations of this split are empty."
            )
        self.written.append(Written(name, kept, left_out))

    def document(self, name: str, value: object) -> None:
        """Writes something that is not rows, as JSON."""
        (self.folder / name).write_text(json.dumps(value, ensure_ascii=False), "utf-8", errors="replace")

    def _look_for(self, image: str) -> bool:
        path = self.image_root / image
        try:
            there = path.is_file() and path.stat().st_size > 0
        except OSError:  # a folder that may not be entered
            there = False
        if not there:
            self.missing += 1
            with (self.folder / MISSING_FILE).open("a", encoding="utf-8", errors="replace") as file:
                file.write(f"{image}\n")
        return there
