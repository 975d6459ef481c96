"""Images downloaded by img2dataset from a list of links: 00001/000010023.jpg with a .txt and .json beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from albef.config import UserError
from albef.data.formats import SUFFIXES
from albef.data.prepare.reading import Row, find
from albef.data.prepare.writing import Files

SHARD = 10_000  # links per folder, img2dataset's default: with it a file's name is the number of its link

Link = tuple[str, str, str]  # its place in the list, caption, URL


def shards_folder(source: Path, name: str) -> Path:
    """The folder of a set's numbered folders, from `source` on."""
    first = find(source, f"{name}/00000", "00000", origin="what img2dataset writes (output_format=files)")
    return first.parent.relative_to(source)


def rows_of_links(links: Iterable[Link], folder: Path, files: Files) -> Iterator[Row]:
    """A row per link, with img2dataset's name of the image. The image's .json must name the same link.

    Images without a .json are counted and reported, since nothing shows whether the caption is theirs.
    """
    unknown = 0
    for number, (where, caption, url) in enumerate(links):
        image = folder / f"{number // SHARD:05d}" / f"{number:09d}.jpg"
        came_from = url_of(files.image_root / image.with_suffix(".json"))
        if came_from is None:
            unknown += files.is_there(str(image))
        elif came_from != url:
            raise UserError(
                f"{files.image_root / image.with_suffix('.json')}: its image came from {came_from}, but {where} has "
                f"{url}. From there on the numbers of images and lines differ: the downloader took several lines for "
                f"one, or the images came from another list. Move the list away, and the captions are taken from the "
                f".txt files beside the images."
            )
        yield where, {"image": str(image), "caption": caption}
    if unknown:
        files.notes.append(
            f"{unknown:,} of the images have no .json beside them that says where they came from: their captions are "
            f"taken by their numbers alone."
        )


def url_of(record: Path) -> str | None:
    """The link that an image came from. None if its .json is missing, broken or does not say."""
    try:
        url = json.loads(record.read_bytes())["url"]
    except Exception:  # broken content may raise anything
        return None
    return url.strip() if isinstance(url, str) else None


def rows_of_folder(folder: Path, source: Path) -> Iterator[Row]:
    """A row per .txt, which holds the caption of the image beside it."""
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
