"""`albef info`, `albef import`, `albef export`: facts about models, and published checkpoints."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from albef.cli.arguments import Commands, output_file, whole
from albef.config import SIZES
from albef.errors import UserError
from albef.exchange.choices import ACTIVATIONS, EXPORTS
from albef.progress import console

SHOWN = {  # facts whose names need a unit or another word
    "state_dict_keys": "published state-dict keys",
    "vocabulary": "vocabulary (word pieces)",
    "image_size": "image size (pixels)",
    "patch_size": "patch size (pixels)",
    "region_width": "numbers in a region's feature",
    "num_objects": "classes of objects",
    "num_answers": "listed answers",
    "max_tokens": "longest text (tokens)",
}


def add(commands: Commands) -> None:
    """Adds the commands and their arguments."""
    command = commands.add_parser(
        "info",
        help="show the heads, parameters and sizes of a model",
        description="Shows what a model is, without running it: heads, number of parameters, vocabulary, image size.",
        epilog="example:\n  albef info runs/quickstart/model",
    )
    command.add_argument(
        "model", metavar="SIZE_OR_MODEL", help=f"size ({', '.join(SIZES)}), run or model directory"
    )
    command.add_argument("--json", action="store_true", help="print JSON, for programs")
    command.set_defaults(command=info)
    add_import(commands)

    add_export(commands)


def add_import(commands: Commands) -> None:
    """Adds `albef import` and its arguments."""
    command = commands.add_parser(
        "import",
        help="turn a published checkpoint into a model directory",
        description="Turns a published checkpoint of ALBEF, CLIP, LXMERT, OSCAR or UNITER into a model directory. "
        "Recognises which it is. Prints which tensors were loaded, ignored and missing.",
        epilog="examples:\n  albef import ALBEF.pth --out models/albef-14m\n"
        "  albef import ViT-B-32.pt --out models/clip-b-32\n"
        "  albef import laion.bin --activation gelu --out models/clip-laion",
    )
    command.add_argument(
        "file",
        type=Path,
        metavar="FILE_OR_FOLDER",
        help="published checkpoint, or the folder with it: .pth, .pt, .bin or .safetensors",
    )
    command.add_argument("--out", type=Path, required=True, metavar="MODEL", help="model directory to write")
    add_choices(command)
    command.set_defaults(command=import_published)


def add_choices(command: argparse.ArgumentParser) -> None:
    """Adds what a published file does not say about itself."""
    command.add_argument(
        "--image-size",
        type=whole(1, 100_000),
        metavar="PIXELS",
        help="side of the images; resizes the position embeddings (default: that of the checkpoint)",
    )
    command.add_argument(
        "--heads",
        type=whole(1),
        nargs="+",
        default=[],
        metavar="N",
        help="attention heads of the image encoder and of the text encoder; one number: of both "
        "(default: what a config.json beside it says, or width / 64)",
    )
    command.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FILE",
        help="tokenizer.json or BERT's vocab.txt of the model (default: the one in its folder, BERT's, or CLIP's "
        "byte pairs). UNITER needs the vocab.txt of bert-base-cased",
    )
    command.add_argument(
        "--append-sep",
        action=argparse.BooleanOptionalAction,
        help="ALBEF: end every text with [SEP], as LAVIS does (default: only if the file's name contains lavis)",
    )
    command.add_argument(
        "--answers",
        type=Path,
        metavar="FILE",
        help="JSON list of answers, LXMERT's all_ans.json or UNITER's ans2label.json. ALBEF, task vqa: those to choose "
        "from (default: none; the model writes its answers). LXMERT, OSCAR and UNITER: those that they score",
    )
    command.add_argument(
        "--activation",
        choices=ACTIVATIONS,
        metavar="NAME",
        help=f"CLIP: activation of its MLPs: {', '.join(ACTIVATIONS)} (default: what the file or its configuration "
        "says; if they do not say it, you must)",
    )


def add_export(commands: Commands) -> None:
    """Adds `albef export` and its arguments."""
    command = commands.add_parser(
        "export",
        help="write a model as a published checkpoint",
        description="Writes a model as a checkpoint that other code reads: an ALBEF, LXMERT or UNITER as its "
        "published scripts do (--official), or in one of several forms (--to).",
        epilog="examples:\n  albef export runs/nlvr --official nlvr.pth\n"
        "  albef export runs/clip --to hugging-face --out clip-hf\n"
        "  albef export runs/oscar --to pytorch-transformers --out oscar",
    )
    command.add_argument("model", metavar="RUN_OR_MODEL", help="run or model directory to export")
    form = command.add_mutually_exclusive_group(required=True)
    form.add_argument(
        "--official", type=output_file, metavar="FILE.pth", help="ALBEF, LXMERT, UNITER: checkpoint to write"
    )
    form.add_argument(
        "--to",
        choices=EXPORTS,
        metavar="FORM",
        help="form to write. "
        + "; ".join(
            f"{form} ({' or '.join(s.upper() for s in systems)})" for form, systems in EXPORTS.items()
        )
        + ". openai is one file, the others are folders",
    )
    command.add_argument(
        "--out",
        metavar="FILE_OR_FOLDER",
        help="with --to: file or folder to write",
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
        table.add_row(
            SHOWN.get(name, name.replace("_", " ")), f"{value:,}" if isinstance(value, int) else str(value)
        )
    console().print(table)


def import_published(given: argparse.Namespace) -> None:
    """`albef import`"""

    from albef.exchange.account import table
    from albef.exchange.choices import Choices
    from albef.exchange.importing import import_checkpoint

    choices = Choices(
        given.image_size,
        tuple(given.heads),
        given.append_sep,
        given.tokenizer,
        given.answers,
        given.activation,
    )
    structure, rows = import_checkpoint(given.file, given.out, choices)
    console().print(table(f"{given.file.name}: {structure.name}", rows))
    print(f"Model: {given.out}")


def export_published(given: argparse.Namespace) -> None:
    """`albef export`"""

    from albef.exchange.account import table
    from albef.exchange.exporting import export_official, export_to

    if given.to:
        if given.out is None:
            raise UserError(f"--to {given.to} needs --out: the file or folder to write.")
        place = place_of(given.to, given.out)
        what, rows = export_to(given.model, given.to, place)
        console().print(table(f"{place.name}: {what}", rows))
        return
    if given.out is not None:
        raise UserError("--out belongs to --to; --official names its own file.")
    structure, rows = export_official(given.model, given.official)
    console().print(table(f"{given.official.name}: {structure.name}", rows))


def place_of(form: str, out: str) -> Path:
    """Where a model is written: OpenAI's form is a file, the others are folders."""
    try:
        return output_file(out) if form == "openai" else Path(out)
    except argparse.ArgumentTypeError as error:
        raise UserError(f"argument --out: {error}.") from None
