"""`albef data`: the embedded data set, and public ones."""

from __future__ import annotations

import argparse
from pathlib import Path

from albef.cli.arguments import LARGEST_SEED, Commands, whole
from albef.data.prepare import NAMES
from albef.progress import console


def add(commands: Commands) -> None:
    """The commands' arguments."""
    command = commands.add_parser("data", help="the embedded data set, and public ones")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    command = actions.add_parser("export", help="write generated images with captions as JSON")
    command.add_argument("name", choices=["pictograms"], help="the data set")
    command.add_argument("--split", default="train", help="split to draw from")
    command.add_argument("--count", type=whole(1), default=1000, help="number of images")
    command.add_argument("--seed", type=whole(0, LARGEST_SEED), default=0, help="random seed of the images")
    command.add_argument("--num-nouns", type=whole(1), default=24, help="different things that are drawn")
    command.add_argument("--image-size", type=whole(1, 10_000), default=128, help="pixels a side")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    command.set_defaults(command=export)

    command = actions.add_parser(
        "prepare", help="make annotation files from a public download (docs/data.md)"
    )
    command.add_argument("name", choices=NAMES, metavar="NAME", help=f"the data set: {', '.join(NAMES)}")
    command.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="DIR", help="folder of the download"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    command.set_defaults(command=prepare)


def export(given: argparse.Namespace) -> None:
    """`albef data export`"""
    from albef.data.pictograms.export import export_pictograms

    annotations = export_pictograms(
        given.out, given.split, given.count, given.seed, given.num_nouns, given.image_size
    )
    print(f"{given.count} pictures in {given.out / 'images'}, captions in {annotations}")


def prepare(given: argparse.Namespace) -> None:
    """`albef data prepare`"""
    from rich.table import Table

    from albef.data.prepare.sets import prepare as write
    from albef.data.prepare.writing import MISSING_FILE

    prepared = write(given.name, given.source, given.out)
    table = Table("file", "rows", "left out", title=f"{given.name} in {given.out}")
    for file in prepared.files:
        table.add_row(file.name, f"{file.rows:,}", f"{file.left_out:,}")
    console().print(table)
    if prepared.missing:
        print(
            f"{prepared.missing:,} pictures are missing or empty (listed in {given.out / MISSING_FILE}); "
            f"their rows were left out."
        )
    for note in prepared.notes:
        print(note)
    print(f"Pictures stay below {given.source}. Train with\n{prepared.command}")
