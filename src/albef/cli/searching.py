"""`albef index` and `albef search`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from albef.cli.arguments import Commands, output_file, whole
from albef.progress import console
from albef.writing import check_file, check_folder


def add(commands: Commands) -> None:
    """The commands' arguments."""
    command = commands.add_parser("index", help="make pictures searchable")
    command.add_argument("model", metavar="MODEL", help="run, model directory or hub id")
    command.add_argument("pictures", nargs="+", type=Path, metavar="PICTURES", help="files and folders")
    command.add_argument("--out", type=Path, required=True, metavar="IDX", help="folder to write")
    command.set_defaults(command=index)

    command = commands.add_parser("search", help="find pictures by a sentence, or by a picture")
    command.add_argument("index", type=Path, metavar="IDX", help="folder of the index")
    command.add_argument("query", help='a sentence such as "two foxes", or a picture')
    command.add_argument("-k", type=whole(1), default=12, help="hits to show")
    command.add_argument(
        "--out", type=output_file, metavar="PNG", help="contact sheet (default: IDX-search.png)"
    )
    command.set_defaults(command=search)


def index(given: argparse.Namespace) -> None:
    """`albef index`"""
    from albef.data.files import summary
    from albef.engine import Engine
    from albef.search.index import FILES, build_index, find_pictures

    check_folder(given.out, FILES)
    files, left_out = find_pictures(given.pictures)
    built = build_index(Engine.load(given.model), files, given.out, left_out)
    skipped = (
        f"; {built.num_skipped} unreadable ones are listed in skipped.jsonl there"
        if built.num_skipped
        else ""
    )
    print(f"{len(built)} pictures indexed in {given.out}{skipped}")
    if left_out:
        print(f"{summary(left_out)} Listed there too.")


def search(given: argparse.Namespace) -> None:
    """`albef search`"""

    from albef.data.formats import SUFFIXES
    from albef.engine import Engine
    from albef.search import search as searching
    from albef.search.index import load_index

    check_file(given.out)
    index = load_index(given.index)
    is_picture = Path(given.query).suffix.lower() in SUFFIXES
    query = Path(given.query) if is_picture else given.query
    hits = searching.search(index, Engine.load(index.model), query, given.k)
    place = Path(os.path.realpath(given.index))
    sheet = given.out or place.with_name(f"{place.name}-search.png")
    searching.contact_sheet(hits, sheet, query)
    console().print(searching.hits_table(hits))
    print(f"Contact sheet: {sheet}")
