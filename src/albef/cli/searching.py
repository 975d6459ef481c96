"""`albef index` and `albef search`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from albef.cli.arguments import (
    Commands,
    add_machine,
    json_file,
    load_engine,
    names_a_file,
    output_file,
    whole,
)
from albef.config import UserError
from albef.disk import free_bytes, size
from albef.progress import console
from albef.writing import STANDARD_OUTPUT, check_file, check_folder, write_json

if TYPE_CHECKING:
    from albef.engine import Engine
    from albef.ranker import Hit
    from albef.search.index import Index


def add(commands: Commands) -> None:
    """The commands' arguments."""
    command = commands.add_parser("index", help="make pictures searchable")
    command.add_argument("model", metavar="MODEL", help="run, model directory or hub id")
    command.add_argument("pictures", nargs="+", type=Path, metavar="PICTURES", help="files and folders")
    command.add_argument("--out", type=Path, required=True, metavar="IDX", help="folder to write")
    command.add_argument("--batch-size", type=whole(1), default=64, metavar="N", help="images in a pass")
    add_machine(command)
    command.set_defaults(command=index)

    command = commands.add_parser("search", help="find pictures by a sentence, or by a picture")
    command.add_argument("index", type=Path, metavar="IDX", help="folder of the index")
    command.add_argument("query", help='a sentence such as "two foxes", or an image file')
    command.add_argument("-k", type=whole(1), default=12, help="hits to show")
    command.add_argument(
        "--out", type=output_file, metavar="PNG", help="contact sheet (default: IDX-search.png)"
    )
    command.add_argument("--model", metavar="MODEL", help="where the model is now (default: where it was)")
    command.add_argument(
        "--moved",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="where a folder of pictures was and is now (repeatable)",
    )
    command.add_argument(
        "--json",
        type=json_file,
        metavar="FILE",
        help="write the hits here as well; -: print them, and nothing else",
    )
    command.add_argument(
        "--paths", action="store_const", const=b"\n", help="print the paths of the hits, and nothing else"
    )
    command.add_argument(
        "--paths0",
        dest="paths",
        action="store_const",
        const=b"\0",
        help="as --paths, with a zero byte after each, for xargs -0",
    )
    command.add_argument("--batch-size", type=whole(1), metavar="N", help="pictures matched in a pass")
    add_machine(command)
    command.set_defaults(command=search)


def index(given: argparse.Namespace) -> None:
    """`albef index`"""
    from albef.data.files import summary
    from albef.search.index import FILES, build_index, find_images, index_bytes

    check_folder(given.out, FILES)
    files, left_out = find_images(given.pictures)
    engine = load_engine(given)
    free = free_bytes(given.out)
    room = "" if free is None else f" ({size(free)} are free there)"
    print(
        f"{len(files):,} files, whose index takes {size(index_bytes(engine.config, len(files)))}{room}",
        flush=True,
    )
    built = build_index(engine, files, given.out, left_out, given.batch_size)
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
    from albef.search.index import load_index
    from albef.search.moved import moved, read_moves
    from albef.search.search import hits_table
    from albef.search.search import search as find

    in_json = given.json == STANDARD_OUTPUT
    for_programs = in_json or given.paths
    check_file(given.out, given.json, inputs=[given.query])
    if in_json and given.paths:
        raise UserError("--json - and --paths both print: name a file for --json.")
    found = load_index(given.index)
    moves = read_moves(given.moved, found)
    query = Path(given.query) if names_a_file(given.query) else given.query
    if given.batch_size and isinstance(query, Path):
        raise UserError("--batch-size is of matching with a text, and the query is an image: leave it out.")
    hits = find(found, model_of(found, given), query, given.k, batch_size=given.batch_size)
    hits = [hit._replace(path=moved(hit.path, moves)) for hit in hits if hit.path is not None]
    if given.json:
        write_json(given.json, for_json(hits))
    if given.paths:
        print_paths(hits, given.paths)
    elif not in_json:
        console().print(hits_table(hits))
    beside = sys.stderr if for_programs else sys.stdout
    if given.out or not for_programs:
        print(sheet_of(hits, query, given), file=beside)
    missing = sum(not os.path.isfile(hit.path or "") for hit in hits)
    if missing:
        print(
            f"{missing} of {len(hits)} hits are not where they were; --moved OLD=NEW says where they are now.",
            file=beside,
        )


def model_of(index: Index, given: argparse.Namespace) -> Engine:
    """The model that made an index, from where the user says that it is, else from where it was."""
    from albef.engine import Engine

    source = given.model or index.model
    if not given.model and (not source or (os.path.isabs(source) and not os.path.isdir(source))):
        was = f"is not at {source} any more" if source else "was in memory only"
        raise UserError(f"{given.index}: the model that made it {was}; say where it is: --model MODEL.")
    return Engine.load(source, given.device, bf16=given.bf16)


def sheet_of(hits: Sequence[Hit], query: Path | str, given: argparse.Namespace) -> str:
    """Where the contact sheet is, which is now drawn; why there is none, if nobody asked for it."""
    from albef.search.search import contact_sheet

    place = Path(os.path.realpath(given.index))
    sheet = given.out or place.with_name(f"{place.name}-search.png")
    try:
        contact_sheet(hits, sheet, query)
    except UserError as error:
        if given.out:
            raise
        return f"No contact sheet: {error} With --out PNG it goes to another place."
    return f"Contact sheet: {sheet}"


def for_json(hits: Sequence[Hit]) -> list[dict[str, object]]:
    """The hits for programs: `match` is the probability of a match, null where only features were compared."""
    from albef.search.search import chance

    return [
        {
            "path": str(hit.path),
            "score": hit.score,
            "similarity": hit.similarity,
            "match": None if hit.match is None else chance(hit.match),
        }
        for hit in hits
    ]


def print_paths(hits: Sequence[Hit], end: bytes) -> None:
    """Prints the paths, each with the bytes that its name has."""
    sys.stdout.flush()
    for hit in hits:
        sys.stdout.buffer.write(os.fsencode(hit.path or "") + end)
    sys.stdout.buffer.flush()
