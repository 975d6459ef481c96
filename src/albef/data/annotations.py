"""Records from annotation files (JSON, JSONL, CSV or TSV). Each row is a record."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import pyarrow as pa

from albef import errors
from albef.config import TaskName, UserError
from albef.data.csv_rows import csv_rows
from albef.data.json_rows import json_rows, jsonl_rows
from albef.data.records import LeftOut, Record, stable_id
from albef.data.rows import ROWS, SCHEMA, Columns, columns, nearest
from albef.data.text_files import quoted, unusable

_READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[tuple[str, object]]]] = {
    ".json": lambda path, required: json_rows(path),
    ".jsonl": lambda path, required: jsonl_rows(path),
    ".csv": csv_rows,
    ".tsv": csv_rows,
}
ENDINGS = ", ".join(_READERS)


class AnnotationSource:
    """The rows of a JSON, JSONL, CSV or TSV file, each with the keys that `rows.py` requires for the task.

    Rows with the same path belong to one image, unless `image_id` says otherwise. Image paths are relative to
    `image_root`, after `strip_prefix` is removed from their beginning. With `only_judged`, rows without the key that
    they are judged by (`rows.Judged`) are left out. Without `with_images` the images need not exist. Raises `UserError`
    if no row is left.
    """

    couple = 1

    def __init__(
        self,
        path: Path,
        image_root: str = "",
        task: TaskName = "pretrain",
        strip_prefix: str = "",
        only_judged: bool = False,
        with_images: bool = True,
    ) -> None:
        if path.suffix.lower() not in _READERS:
            raise UserError(
                f"{path}: unknown kind of annotation file. Its name must end in one of {ENDINGS}."
            )
        root = Path(os.path.expanduser(image_root)) if image_root else path.parent
        if not os.path.isdir(root):
            raise UserError(f"{root}: no such folder. Correct data.image_root.")
        file = AnnotationFile(path, task, strip_prefix, only_judged)
        self._columns = _arrow_columns(file.rows(), path)
        self._name, self._root, self._below_root = path.name, root, os.path.join(os.path.abspath(root), "")
        self.notes: Sequence[str] = file.notes()
        self.left_out: Sequence[LeftOut] = file.left_out
        self.none_judged = file.none_judged()  # the error to raise if no row has the key that it is judged by
        if not self._columns:
            raise UserError(self.none_judged or f"{path}: holds no rows.")
        images = [self._columns["image"][index].as_py() for index in range(0, len(self), len(self) // 5 + 1)]
        if with_images and not any(os.path.exists(root / image) for image in images):
            explain_paths(images, root, f"{path}, {self._columns['place'][0].as_py()}")
            self.notes = [*self.notes, none_there(path, images, root)]

    def __len__(self) -> int:
        return len(self._columns["place"])

    def record(self, index: int, epoch: int) -> Record:
        """Row `index`, the same in every epoch."""
        row: Columns = {name: column[index].as_py() for name, column in self._columns.items()}
        image, second, image_id, box = (
            row["image"],
            row.get("second_image"),
            row.get("image_id"),
            row.get("box"),
        )
        return Record(
            image=self._root / image,
            captions=tuple(row["captions"]),
            image_id=self._identity(image) if image_id is None else image_id,
            caption_ids=None,
            origin=f"{self._name}, {row['place']}",
            second_image=None if second is None else self._root / second,
            label=row.get("label"),
            answers=tuple(row.get("answers") or ()),
            answer_weights=tuple(row.get("answer_weights") or ()),
            official=bool(row.get("official")),
            key=row.get("key") or "",
            box=None if box is None else tuple(box),
        )

    def _identity(self, image: str) -> int:
        """A number for an image, from its path as text: asking the file system about millions would take long."""
        path = os.path.normpath(os.path.join(self._below_root, image))
        # Relative to the root, so that numbers stay the same when the data move.
        return stable_id(path.removeprefix(self._below_root))


class AnnotationFile:
    """The rows of one file for one task, and counts of what was left out."""

    def __init__(self, path: Path, task: TaskName, strip_prefix: str, only_judged: bool) -> None:
        self.path, self.task, self.strip_prefix, self.only_judged = path, task, strip_prefix, only_judged
        self.judged = ROWS[task].judged
        self.num_rows, self.num_unjudged, self.num_empty, self.near = 0, 0, 0, ""
        self.spread: list[str] = []  # places of rows that span several lines
        self.left_out: list[LeftOut] = []

    def rows(self) -> Iterator[Columns]:
        """The rows as `SCHEMA` has them."""
        errors.reading.set(self.path)
        reader, judged = _READERS[self.path.suffix.lower()], self.judged
        for place, row in reader(self.path, ROWS[self.task].required):
            read = columns(row, self.task, f"{self.path}, {place}")
            read["place"] = place
            self.num_rows += 1
            if place.startswith("lines"):
                self.spread.append(place)
            self.num_empty += not any(text.strip() for text in read["captions"])
            if self.strip_prefix:
                for image in ("image", "second_image"):
                    read[image] = stripped(read[image], self.strip_prefix)
            if judged and not read[judged.column]:
                assert isinstance(row, dict)
                self.num_unjudged += 1
                self.near = self.near or nearest(row, judged.key)
                if self.only_judged:
                    origin, reason = f"{self.path.name}, {place}", f'there is no "{judged.key}"'
                    self.left_out.append(LeftOut(origin, reason))
                    continue
            yield read

    def notes(self) -> list[str]:
        """Notes about the file for the user, in sentences."""
        notes, rows = [], f"of {self.num_rows:,}"
        if self.judged and 0 < self.num_unjudged < self.num_rows:
            judged, done = self.judged, "left out" if self.only_judged else "not judged"
            notes.append(
                f'{self.path}: {self.num_unjudged:,} {rows} {judged.rows} have no "{judged.key}"{self.meant()} and are '
                f"{done}."
            )
        if self.num_empty:
            key = ROWS[self.task].required[1]
            notes.append(
                f'{self.path}: {self.num_empty:,} {rows} rows have an empty "{key}" and nothing else.'
            )
        if self.spread:
            notes.append(
                f"{self.path}: {len(self.spread):,} {rows} rows run over several lines, the first from "
                f"{self.spread[0]}; if that is not meant, a quotation mark is not closed there."
            )
        return notes

    def none_judged(self) -> str:
        """The error if no row has the key that it is judged by."""
        judged = self.judged
        if judged is None or not self.num_rows or self.num_unjudged < self.num_rows:
            return ""
        verb = "learn from" if self.only_judged and judged.learned else "judge"
        article = "an" if judged.key[0] in "aeiou" else "a"
        return (
            f"{self.path}: none of the {self.num_rows:,} {judged.rows} has {article} "
            f'"{judged.key}"{self.meant()}: there is nothing to {verb}.'
        )

    def meant(self) -> str:
        """The key in the file that was probably meant for the missing one."""
        return f" (found {quoted(self.near)})" if self.near else ""


def stripped(image: str | None, prefix: str) -> str | None:
    """A path without its beginning."""
    if image is None or not image.startswith(prefix):
        return image
    return image.removeprefix(prefix).lstrip("/")


def none_there(path: Path, images: Sequence[str], root: Path) -> str:
    """The note for a file of which none of these images exists."""
    others = ", and none of the others that were looked for" if len(images) > 1 else ""
    first, root_shown = (errors.printable(str(place)) for place in (root / images[0], root))
    return (
        f"{path}: {first} is not there{others}. Image paths begin at {root_shown}; data.image_root (--image-root) is "
        f"another folder for them."
    )


def explain_paths(images: Sequence[str], root: Path, where: str) -> None:
    """Raises `UserError` if it is clear why none of these images exists. `where` is the row of the first."""
    image = images[0]
    if "://" in image:
        raise UserError(
            f"{where}: {quoted(image)} is a link, but images must be files. Download them, and name the files."
        )
    if all(os.path.isfile(root / one.strip()) for one in images):
        raise UserError(
            f"{where}: {quoted(image)} has spaces at an end, and there is no such file. Remove the spaces."
        )
    beginning, below = known_end(image, root)
    if "\\" in image and below:
        raise UserError(
            f"{where}: {quoted(image)} is written as on Windows, and there is no such file here; but {below} is there "
            f"below {root}: write it as {quoted(below)}."
        )
    if below and all(os.path.isfile(root / (stripped(one, beginning) or "")) for one in images):
        how = "an absolute path, which data.image_root (--image-root) is not put before"
        if not os.path.isabs(image):
            how = f"below {root} by data.image_root (--image-root)"
        raise UserError(
            f"{where}: {quoted(image)} is {how}, and there is no such file; but {below} is there below {root}: set "
            f"data.strip_prefix (--strip-prefix) to {beginning}, or take that away from the rows."
        )


def known_end(image: str, root: Path) -> tuple[str, str]:
    """A path's beginning, and its longest end that is a file below the root. Empty if there is none."""
    parts = re.split(r"[/\\]", image)
    for start in range(len(parts)):
        below = "/".join(parts[start:])
        if below and not os.path.isabs(below) and os.path.isfile(root / below):
            return image[: len(image) - len(below)], below
    return "", ""


# Rows are stored as Arrow columns. As Python objects, millions of rows would take gigabytes in every process.
def _arrow_columns(rows: Iterator[Columns], path: Path) -> dict[str, pa.Array]:
    """The columns of `SCHEMA` that are not empty. An empty column would take as much memory as a full one."""
    batches = []
    while chunk := list(islice(rows, 65_536)):
        batches.append(_record_batch(chunk, path))
    table = pa.Table.from_batches(batches, SCHEMA).combine_chunks()
    return {
        name: column.chunk(0)
        for name, column in zip(SCHEMA.names, table.columns, strict=True)
        if column.null_count < len(column)
    }


def _record_batch(rows: Sequence[Columns], path: Path) -> pa.RecordBatch:
    """The rows as Arrow columns. Raises `UserError`, which names the row, for values that Arrow cannot store."""
    try:
        return pa.RecordBatch.from_pylist(rows, SCHEMA)
    except Exception as error:
        if len(rows) > 1:
            for row in rows:
                _record_batch([row], path)
        place = str(rows[0]["place"])
        if isinstance(error, UnicodeEncodeError):
            raise UserError(f"{path}, {place}: not UTF-8 text ({error.reason}); correct it.") from None
        raise unusable(path, place, error) from None
