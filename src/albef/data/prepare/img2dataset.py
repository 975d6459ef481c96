"""Pictures that img2dataset downloaded from a list of links: 00001/000010023.jpg, .txt and .json beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from albef.config import UserError
from albef.data.formats import SUFFIXES
from albef.data.prepare.reading import Row, find

SHARD = 10_000  # links per folder, img2dataset's default; then a file's name is its link's number

Link = tuple[str, str, str]  # where it stands, caption, URL


def shards_folder(source: Path, name: str) -> Path:
    """The folder of a set's numbered folders, from `source` on."""
    first = find(source, f"{name}/00000", "00000", origin="what img2dataset writes (output_format=files)")
    return first.parent.relative_to(source)


def rows_of_links(links: Iterable[Link], folder: Path, source: Path) -> Iterator[Row]:
    """A row per link, named as img2dataset names its pictures; their own .json must agree, once in every folder."""
    checked = -1
    for number, (where, caption, url) in enumerate(links):
        shard = number // SHARD
        image = folder / f"{shard:05d}" / f"{number:09d}.jpg"
        if checked < shard:
            record = source / image.with_suffix(".json")
            if record.is_file():
                check_url(record, url, where)
                checked = shard
        yield where, {"image": str(image), "caption": caption}


def check_url(record: Path, url: str, where: str) -> None:
    """Raises `UserError` if a picture came from another link."""
    try:
        found = json.loads(record.read_text("utf-8"))["url"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f'{record}: not a JSON object with "url", as img2dataset writes it.') from None
    if found != url:
        raise UserError(
            f"{record}: its picture came from {found}, but {where} has {url}; the pictures were downloaded from "
            f"another list. Move the list away to take the captions from the .txt files beside the pictures."
        )


def rows_of_folder(folder: Path, source: Path) -> Iterator[Row]:
    """A row per .txt, which holds the caption of the picture beside it."""
    for shard in sorted(path for path in (source / folder).iterdir() if path.name.isdigit()):
        names = {path.name for path in shard.iterdir()}
        for name in sorted(names):
            if name.endswith(".txt"):
                stem = name.removesuffix(".txt")
                image = next(
                    (stem + suffix for suffix in sorted(SUFFIXES) if stem + suffix in names), f"{stem}.jpg"
                )
                caption = (shard / name).read_text("utf-8", errors="replace").strip()
                yield str(shard / name), {"image": str(folder / shard.name / image), "caption": caption}
