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
    add_json,
    add_machine,
    load_engine,
    output_file,
    query_of,
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
    """Adds the commands and their arguments."""
    command = commands.add_parser(
        "index",
        help="make a folder of images searchable",
        description="Encodes images with a model and writes an index, which albef search searches. The index holds "
        "paths and features, not the images.",
        epilog="example:\n  albef index runs/quickstart ~/Pictures --out photos.idx",
    )
    command.add_argument(
        "model", metavar="MODEL", help="run, model directory or model of the Hugging Face hub"
    )
    command.add_argument(
        "pictures", nargs="+", type=Path, metavar="IMAGES", help="image files, and folders with images"
    )
    command.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="IDX",
        help="folder of the index; an older index is replaced",
    )
    command.add_argument(
        "--batch-size",
        type=whole(1),
        default=64,
        metavar="N",
        help="images to encode at once; fewer need less memory",
    )
    add_machine(command)
    command.set_defaults(command=index)
    add_search(commands)


def add_search(commands: Commands) -> None:
    """Adds `albef search` and its arguments."""
    command = commands.add_parser(
        "search",
        help="find images with a sentence or an image",
        description="Finds the images of an index that fit a sentence, or that are similar to an image. Prints the "
        "hits and draws them on one sheet.",
        epilog='examples:\n  albef search photos.idx "two foxes"\n  albef search photos.idx holiday.jpg -k 20\n'
        '  albef search photos.idx "two foxes" --rerank-with runs/other',
    )
    command.add_argument("index", type=Path, metavar="IDX", help="folder of the index")
    command.add_argument("query", metavar="QUERY", help='a sentence such as "two foxes", or an image file')
    command.add_argument("-k", type=whole(1), default=12, metavar="N", help="number of hits")
    command.add_argument(
        "--out",
        type=output_file,
        metavar="PNG",
        help="image file for the sheet of hits (default: beside the index, IDX-search.png)",
    )
    command.add_argument(
        "--model", metavar="MODEL", help="where the model is now, if it was moved (default: as when indexing)"
    )
    command.add_argument(
        "--rerank-with",
        metavar="MODEL",
        help="second model, with ITM, that orders the best 64 images of the index, or the best -k",
    )
    command.add_argument(
        "--moved",
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="old and new folder of images that were moved; repeat the option for several (default: none)",
    )
    add_json(command, "the hits")
    command.add_argument(
        "--paths",
        action="store_const",
        const=b"\n",
        help="print only the paths of the hits, one per line (default: off)",
    )
    command.add_argument(
        "--paths0",
        dest="paths",
        action="store_const",
        const=b"\0",
        help="like --paths, but with a zero byte after each path, for xargs -0 (default: off)",
    )
    command.add_argument(
        "--batch-size",
        type=whole(1),
        metavar="N",
        help="images that a model reads at once; fewer need less memory (default: as many as fit into 256 MB)",
    )
    add_machine(command)
    command.set_defaults(command=search)


def index(given: argparse.Namespace) -> None:
    """`albef index`"""
    from albef.data.files import summary
    from albef.search.index import CONTENT, build_index, counted, find_images, index_bytes

    check_folder(given.out, CONTENT)
    refuse_index(given.model)
    files, left_out = find_images(given.pictures)
    engine = load_engine(given)
    engine.must_contrast()
    free = free_bytes(given.out)
    room = "" if free is None else f" ({size(free)} are free)"
    taken = size(index_bytes(engine, len(files)))
    whose = "Its" if len(files) == 1 else "Their"
    print(f"{counted(len(files), 'image file')}. {whose} index will take {taken}{room}.", flush=True)
    built = build_index(engine, files, given.out, left_out, given.batch_size)
    print(f"{counted(len(built), 'image')} indexed in {given.out}")
    if built.num_skipped:
        skipped = counted(built.num_skipped, "unreadable image")
        print(
            f"{skipped} skipped; {given.out}/skipped.jsonl lists {'it' if built.num_skipped == 1 else 'them'}."
        )
    if left_out:
        print(f"{summary(left_out)} {given.out}/skipped.jsonl lists them.")


def search(given: argparse.Namespace) -> None:
    """`albef search`"""
    from albef.search.index import load_index
    from albef.search.moved import read_moves
    from albef.search.search import hits_table
    from albef.search.search import search as find

    in_json = given.json == STANDARD_OUTPUT
    for_programs = in_json or given.paths
    check_file(given.out, given.json, inputs=[given.query])
    if in_json and given.paths:
        raise UserError("--json - and --paths both print their result: name a file for --json.")
    found = load_index(given.index)
    moves = read_moves(given.moved, found)
    query = query_of(given.query)
    if given.batch_size and isinstance(query, Path):
        raise UserError(
            "--batch-size has no effect when the query is an image, since ITM scores nothing then: leave it out."
        )
    if given.rerank_with and isinstance(query, Path):
        raise UserError(
            "--rerank-with has no effect when the query is an image, since re-ranking reads a text: leave it out."
        )
    hits = find(
        found,
        model_of(found, given),
        query,
        given.k,
        batch_size=given.batch_size,
        reranker=reranker_of(given),
        say=lambda cost: print(cost, file=sys.stderr),
        moves=moves,
    )
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
        said = "hits are no longer where they were indexed. If you moved them, add --moved OLD=NEW."
        if missing == 1:
            said = "hits is no longer where it was indexed. If you moved it, add --moved OLD=NEW."
        print(f"{missing} of {len(hits)} {said}", file=beside)


def model_of(index: Index, given: argparse.Namespace) -> Engine:
    """The model that made an index: from `--model`, else from where it was then."""
    from albef.engine import Engine

    if given.model:
        refuse_index(given.model, "--model ")
    source = given.model or index.model
    if not given.model and (not source or (os.path.isabs(source) and not os.path.isdir(source))):
        was = f"is no longer at {source}" if source else "was only in memory"
        raise UserError(f"{given.index}: the model that made it {was}; name it with --model MODEL.")
    return Engine.load(source, given.device, bf16=given.bf16)


def reranker_of(given: argparse.Namespace) -> Engine | None:
    """The second model, if one is named."""
    from albef.engine import Engine

    if not given.rerank_with:
        return None
    refuse_index(given.rerank_with, "--rerank-with ")
    return Engine.load(given.rerank_with, given.device, bf16=given.bf16)


def refuse_index(source: str, option: str = "") -> None:
    """Raises `UserError` if an index was named in the place of a model."""
    from albef.search.index import FACTS_FILE

    if os.path.isfile(os.path.join(source, FACTS_FILE)):
        raise UserError(
            f"{option}{source}: is an index, but a model is needed here. Name a run, a model directory or a model of "
            f"the Hugging Face hub."
        )


def sheet_of(hits: Sequence[Hit], query: Path | str, given: argparse.Namespace) -> str:
    """Draws the contact sheet and says where it is; if it can't be written and `--out` was not given, says why."""
    from albef.search.search import contact_sheet

    place = Path(os.path.realpath(given.index))
    sheet = given.out or place.with_name(f"{place.name}-search.png")
    try:
        contact_sheet(hits, sheet, query)
    except UserError as error:
        if given.out:
            raise
        return f"No contact sheet: {error} Add --out FILE.png to write it elsewhere."
    return f"Contact sheet: {sheet}"


def for_json(hits: Sequence[Hit]) -> list[dict[str, object]]:
    """The hits as JSON: `match` is the probability of a match, null where only features were compared.

    After re-ranking `index_similarity` is that of the index's model. The scores of an image that the second model could
    not read are null.
    """
    from albef.search.search import chance, was_read

    found: list[dict[str, object]] = []
    for hit in hits:
        found.append(
            {
                "path": str(hit.path),
                "score": hit.score if was_read(hit) else None,
                "similarity": hit.similarity if was_read(hit) else None,
                "match": None if hit.match is None else chance(hit.match),
            }
        )
        if hit.index_similarity is not None:
            found[-1]["index_similarity"] = hit.index_similarity
    return found


def print_paths(hits: Sequence[Hit], end: bytes) -> None:
    """Prints the paths, each as the bytes that the file system holds."""
    sys.stdout.flush()
    for hit in hits:
        sys.stdout.buffer.write(os.fsencode(hit.path or "") + end)
    sys.stdout.buffer.flush()
