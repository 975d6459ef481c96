"""`albef info`, `albef import`, `albef export`: models, and published checkpoints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from albef.cli.arguments import Commands, output_file, whole
from albef.config import SIZES
from albef.progress import console


def add(commands: Commands) -> None:
    """The commands' arguments."""
    command = commands.add_parser("info", help="what a model is: heads, parameters, sizes")
    command.add_argument(
        "model", metavar="SIZE_OR_MODEL", help=f"{', '.join(SIZES)}, or a run or model directory"
    )
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(command=info)

    command = commands.add_parser("import", help="make a model directory from a published checkpoint")
    command.add_argument("file", type=Path, metavar="FILE.pth", help="the published checkpoint")
    command.add_argument("--out", type=Path, required=True, metavar="MODEL", help="folder to write")
    command.add_argument(
        "--image-size",
        type=whole(1, 100_000),
        metavar="PIXELS",
        help="resize the position embeddings to this image size (default: as published)",
    )
    command.add_argument(
        "--heads",
        type=whole(1),
        nargs="+",
        default=[],
        metavar="N",
        help="attention heads of the image and the text encoder (default: width / 64)",
    )
    command.add_argument(
        "--append-sep",
        action=argparse.BooleanOptionalAction,
        help="texts end in [SEP] (default: only if the file is named …lavis…)",
    )
    command.add_argument("--tokenizer", type=Path, metavar="FILE", help="tokenizer.json (default: BERT's)")
    command.add_argument(
        "--answers", type=Path, metavar="FILE", help="vqa: JSON list of the answers to choose from"
    )
    command.set_defaults(command=import_published)

    command = commands.add_parser("export", help="write a model as the published scripts read it")
    command.add_argument("model", metavar="RUN_OR_MODEL", help="what to write")
    command.add_argument(
        "--official", type=output_file, required=True, metavar="FILE.pth", help="file to write"
    )
    command.set_defaults(command=export_published)


def info(given: argparse.Namespace) -> None:
    """`albef info`"""
    from rich.table import Table

    from albef.cli.info import model_facts

    facts = model_facts(given.model)
    if given.json:
        print(json.dumps(facts, indent=1))
        return
    table = Table(show_header=False, title=given.model)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    console().print(table)


def import_published(given: argparse.Namespace) -> None:
    """`albef import`"""

    from albef.exchange.account import table
    from albef.exchange.importing import Choices, import_checkpoint

    choices = Choices(given.image_size, tuple(given.heads), given.append_sep, given.tokenizer, given.answers)
    structure, rows = import_checkpoint(given.file, given.out, choices)
    console().print(table(f"{given.file.name}: {structure.name}", rows))
    print(f"Model: {given.out}")


def export_published(given: argparse.Namespace) -> None:
    """`albef export`"""

    from albef.exchange.account import table
    from albef.exchange.exporting import export_official

    structure, rows = export_official(given.model, given.official)
    console().print(table(f"{given.official.name}: {structure.name}", rows))
