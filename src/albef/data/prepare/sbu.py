"""SBU Captioned Photos for pre-training: links and captions in two text files or in one JSON, and their images."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from albef.config import UserError
from albef.data.prepare.img2dataset import Link, rows_of_folder, rows_of_links, shards_folder
from albef.data.prepare.reading import find, search, texts
from albef.data.prepare.writing import Files, Training

URLS, CAPTIONS = "SBU_captioned_photo_dataset_urls.txt", "SBU_captioned_photo_dataset_captions.txt"


def sbu(source: Path, files: Files) -> Training:
    """Writes sbu.jsonl. Without a list of links, it uses the captions beside the images."""
    folder = shards_folder(source, "sbu")
    urls, together = search(source, URLS), search(source, "sbu-captions-all.json")
    if urls:
        captions = find(
            source, CAPTIONS, origin="the SBU Captioned Photo Dataset, SBUCaptionedPhotoDataset.tar.gz"
        )
        rows = rows_of_links(pairs(lines(captions), lines(urls)), folder, files)
    elif together:
        columns = texts(together, "captions"), texts(together, "image_urls")
        rows = rows_of_links(pairs(*columns), folder, files)
    else:
        rows = rows_of_folder(folder, source)
    files.rows("sbu.jsonl", "pretrain", rows)
    return Training("own-data", {"source": "sbu.jsonl"})


def pairs(captions: Iterator[tuple[str, str]], urls: Iterator[tuple[str, str]]) -> Iterator[Link]:
    """The links. Caption n belongs to URL n."""
    for caption, url in zip_longest(captions, urls):
        if caption is None or url is None:
            more, fewer = ("URLs", "captions") if caption is None else ("captions", "URLs")
            raise UserError(
                f"{(caption or url)[0]}: there are more {more} than {fewer}; download both again."
            )
        yield caption[0], caption[1].strip(), url[1].strip()


def lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a text file, each with its place."""
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            yield f"{path}, line {number}", line
