"""`albef data`: the built-in data set, and public ones."""

from __future__ import annotations

import argparse
from pathlib import Path

from albef.cli.arguments import LARGEST_SEED, Commands, Help, whole
from albef.data.prepare import NAMES
from albef.progress import console


def add(commands: Commands) -> None:
    """Adds the commands and their arguments."""
    command = commands.add_parser(
        "data",
        help="write the built-in data set, or convert a public one",
        description="Writes the built-in data set pictograms, or converts a public data set.",
    )
    command.formatter_class = Help
    actions = command.add_subparsers(required=True, title="actions", metavar="ACTION")
    command = actions.add_parser(
        "export",
        help="write generated images with captions",
        description="Writes generated images (pictograms) into DIR/images and their captions into DIR/SPLIT.json.",
        epilog="example:\n  albef data export pictograms --split test --count 500 --out my-test",
    )
    command.add_argument("name", choices=["pictograms"], metavar="pictograms", help="name of the data set")
    command.add_argument("--split", default="train", metavar="SPLIT", help="split to draw from")
    command.add_argument("--count", type=whole(1), default=1000, metavar="N", help="number of images")
    command.add_argument(
        "--seed", type=whole(0, LARGEST_SEED), default=0, metavar="N", help="random seed of the images"
    )
    command.add_argument(
        "--num-nouns", type=whole(1), default=24, metavar="N", help="number of different things in the images"
    )
    command.add_argument(
        "--image-size", type=whole(1, 10_000), default=128, metavar="PIXELS", help="side of the images"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder to write")
    command.set_defaults(command=export)

    command = actions.add_parser(
        "prepare",
        help="convert a public data set that you have downloaded",
        description="Writes annotation files from a public data set that you have downloaded. The images stay where "
        "they are. docs/data.md says which files DIR must hold.",
        epilog="example:\n  albef data prepare coco --from downloads/coco --out data/coco",
    )
    command.add_argument(
        "name", choices=NAMES, metavar="NAME", help=f"name of the data set: {', '.join(NAMES)}"
    )
    command.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="DIR", help="folder of the download"
    )
    command.add_argument(
        "--regions",
        default="",
        metavar="PLACE",
        help="UNITER, OSCAR and LXMERT: file or folder with the regions of the images, which need not be in DIR then "
        "(default: none)",
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    command.set_defaults(command=prepare)


def export(given: argparse.Namespace) -> None:
    """`albef data export`"""
    from albef.data.pictograms.export import export_pictograms

    annotations = export_pictograms(
        given.out, given.split, given.count, given.seed, given.num_nouns, given.image_size
    )
    print(f"{given.count:,} images in {given.out / 'images'}, captions in {annotations}")


def prepare(given: argparse.Namespace) -> None:
    """`albef data prepare`"""
    from rich.table import Table

    from albef.data.prepare.sets import prepare as write
    from albef.data.prepare.writing import MISSING_FILE

    prepared = write(given.name, given.source, given.out, given.regions)
    table = Table("file", "rows", "rows left out", title=f"{given.name} in {given.out}")
    for file in prepared.files:
        table.add_row(file.name, f"{file.rows:,}", f"{file.left_out:,}")
    console().print(table)
    if prepared.missing:
        lack = "have no regions" if given.regions else "are missing or empty"
        print(
            f"{prepared.missing:,} images {lack}. Their rows were left out. {given.out / MISSING_FILE} lists them."
        )
    for note in prepared.notes:
        print(note)
    if given.regions:
        print(
            "RECIPE below stands for a recipe in recipes/uniter, recipes/oscar or recipes/lxmert, such as "
            "recipes/uniter/vqa.yaml."
        )
    print(f"The images stay in {given.source}. To train on them:\n{prepared.command}")
