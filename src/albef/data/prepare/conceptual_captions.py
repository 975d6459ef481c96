"""Conceptual Captions 3M and 12M for pre-training: a table of links (read as a stream), and their images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from albef.config import UserError
from albef.data.prepare.img2dataset import Link, rows_of_folder, rows_of_links, shards_folder
from albef.data.prepare.reading import search
from albef.data.prepare.writing import Files, Training

HEADER = {"caption", "url"}  # img2dataset needs a header, but the official tables have none


def cc3m(source: Path, files: Files) -> Training:
    """Writes cc3m.jsonl."""
    return conceptual_captions(
        "cc3m", ("Train_GCC-training.tsv", "Train-GCC-training.tsv", "cc3m.tsv"), source, files
    )


def cc12m(source: Path, files: Files) -> Training:
    """Writes cc12m.jsonl."""
    return conceptual_captions("cc12m", ("cc12m.tsv",), source, files)


def conceptual_captions(name: str, tables: tuple[str, ...], source: Path, files: Files) -> Training:
    """Writes the rows of the table's links. Without a table, it writes the captions beside the images."""
    folder, table = shards_folder(source, name), search(source, *tables)
    rows = rows_of_links(links(table), folder, files) if table else rows_of_folder(folder, source)
    files.rows(f"{name}.jsonl", "pretrain", rows)
    return Training("own-data", {"source": f"{name}.jsonl"})


def links(table: Path) -> Iterator[Link]:
    """The links of a table. Its first line tells whether the caption comes first (CC3M) or the URL (CC12M)."""
    url_first: bool | None = None  # not known yet
    with table.open(encoding="utf-8", errors="replace", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            where, fields = f"{table}, line {number}", line.rstrip("\r\n").split("\t")
            if number == 1 and set(fields) == HEADER:
                continue
            if len(fields) != 2:
                raise UserError(f"{where}: expected a caption, a tab and a URL, found {len(fields)} fields.")
            if url_first is None:
                url_first = fields[0].startswith("http")
            caption, url = reversed(fields) if url_first else fields
            yield where, caption.strip(), url.strip()
