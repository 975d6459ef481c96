"""`albef index` and `albef search`."""

from __future__ import annotations

import argparse
from pathlib import Path

from albef.cli.arguments import Commands, make_room


def add(commands: Commands) -> None:
    """The commands' arguments."""
    command = commands.add_parser("index", help="make pictures searchable")
    command.add_argument("model", metavar="MODEL")
    command.add_argument("pictures", nargs="+", type=Path, metavar="PICTURES", help="files and folders")
    command.add_argument("--out", type=Path, required=True, metavar="IDX")
    command.set_defaults(command=index)

    command = commands.add_parser("search", help="find pictures by a sentence, or by a picture")
    command.add_argument("index", type=Path, metavar="IDX")
    command.add_argument("query", help='a sentence such as "two foxes", or a picture')
    command.add_argument("-k", type=int, default=12, help="hits to show")
    command.add_argument("--out", type=Path, metavar="PNG", help="contact sheet (default: IDX-search.png)")
    command.set_defaults(command=search)


def index(given: argparse.Namespace) -> None:
    """`albef index`"""
    from albef.data.files import summary
    from albef.engine import Engine
    from albef.search.index import build_index, find_pictures

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
    from rich.console import Console

    from albef.data.formats import SUFFIXES
    from albef.engine import Engine
    from albef.search import search as searching
    from albef.search.index import load_index

    make_room(given.out)
    index = load_index(given.index)
    is_picture = Path(given.query).suffix.lower() in SUFFIXES
    query = Path(given.query) if is_picture else given.query
    hits = searching.search(index, Engine.load(index.model), query, given.k)
    sheet = given.out or given.index.with_name(f"{given.index.name}-search.png")
    searching.contact_sheet(hits, sheet, query)
    Console(markup=False).print(searching.hits_table(hits))
    print(f"Contact sheet: {sheet}")
