"""The command `albef`: its arguments. What each command does is in `commands`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from albef import __version__
from albef.commands import (
    doctor,
    estimate,
    evaluate,
    export,
    export_published,
    import_published,
    index,
    info,
    predict,
    prepare,
    runs,
    search,
    train,
    verify,
)
from albef.config import SIZES, TaskName, UserError
from albef.data.prepare import NAMES

INTERRUPTED = 130

PICTURE: dict[str, Any] = {"type": Path, "metavar": "PICTURE"}
PREDICTIONS: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {
    "match": ("how well a text fits a picture", {"picture": PICTURE, "text": {"metavar": "TEXT"}}),
    "retrieval": (
        "which pictures fit a text best, or which texts a picture?",
        {
            "query": {"metavar": "QUERY", "help": "a text, or a picture"},
            "gallery": {
                "nargs": "+",
                "metavar": "GALLERY",
                "help": "pictures for a text, texts for a picture",
            },
            "-k": {"type": int, "default": 10, "help": "hits to show"},
        },
    ),
    "vqa": (
        "answer a question",
        {
            "picture": PICTURE,
            "text": {"metavar": "QUESTION"},
            "--candidates": {"nargs": "+", "metavar": "ANSWER", "help": "answers to choose from"},
            "-k": {"type": int, "default": 5, "help": "answers to show"},
        },
    ),
    "entailment": (
        "does a picture entail a sentence?",
        {"picture": PICTURE, "text": {"metavar": "SENTENCE"}},
    ),
    "nlvr": (
        "is a statement true of two pictures?",
        {"picture": PICTURE, "second": PICTURE, "text": {"metavar": "STATEMENT"}},
    ),
    "grounding": (
        "where in a picture is what a phrase means?",
        {
            "picture": PICTURE,
            "text": {"metavar": "PHRASE"},
            "--score": {"choices": ["itm", "itc"], "default": "itm", "help": "whose map"},
            "--layer": {"type": int, "help": "fusion layer of the map, from 0"},
            "--out": {"type": Path, "metavar": "PNG", "help": "picture with map and box"},
        },
    ),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command; exits with 0, or 2 for a mistake that the user can mend, 130 after Ctrl-C, 143 after SIGTERM."""
    parser = build_parser()
    # `--section.key=value` belongs to the recipe, which knows its keys; everything else must be known here.
    given, settings = parser.parse_known_args(arguments)
    takes_settings = given.command in (train, estimate)
    if settings and not takes_settings:
        parser.error(f"unknown argument: {settings[0]}")
    try:
        given.command(given, settings) if takes_settings else given.command(given)
    except UserError as error:
        print(f"albef: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)


def build_parser() -> argparse.ArgumentParser:
    """The commands and their arguments."""
    parser = argparse.ArgumentParser(
        prog="albef", description="Align before fuse: vision and language together."
    )
    parser.add_argument("--version", action="version", version=f"albef {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser(
        "train",
        help="train a recipe, evaluate it and write its report",
        description="Any setting of the recipe can be overridden: --section.key=value.",
    )
    command.add_argument("recipe", type=Path, nargs="?", metavar="RECIPE.yaml")
    command.add_argument("--out", type=Path, metavar="RUN", help="run folder (default: runs/NAME_OF_RECIPE)")
    command.add_argument("--resume", type=Path, metavar="RUN", help="go on with a run, without its recipe")
    command.add_argument(
        "--allow-changes",
        action="store_true",
        help="go on although settings or data have changed; noted in RUN/changes.jsonl",
    )
    command.add_argument("--init", metavar="MODEL", help="weights to start from: as --train.init=MODEL")
    command.add_argument("--print_config", action="store_true", help="print the whole configuration and stop")
    command.set_defaults(command=train)

    command = commands.add_parser(
        "estimate",
        help="parameters, memory and time of a recipe, from a few steps",
        description="Any setting of the recipe can be overridden: --section.key=value.",
    )
    command.add_argument("recipe", type=Path, metavar="RECIPE.yaml")
    command.set_defaults(command=estimate)

    command = commands.add_parser(
        "evaluate", help="the figures of a run or model, by the task it was trained for"
    )
    command.add_argument("model", metavar="RUN_OR_MODEL")
    command.add_argument(
        "--data",
        default="",
        help="an annotation file or a folder (default: data.validation of a run on such data, else pictograms, "
        "as the task has them)",
    )
    command.add_argument("--task", choices=get_args(TaskName), help="default: what the model was trained for")
    command.add_argument("--split", action="append", help="test, unseen_vendor, … (repeatable)")
    command.add_argument("--seed", type=int, default=1, help="of the generated gallery")
    command.add_argument("--count", type=int, default=500, help="pictures in the gallery")
    command.add_argument(
        "--num-nouns", type=int, default=None, help="default: as the run was trained, else 24"
    )
    command.add_argument(
        "--top-k",
        "--k-test",
        type=positive,
        default=64,
        help="candidates that ITM re-ranks; answers that are scored whole",
    )
    command.add_argument(
        "--answers", type=Path, metavar="FILE", help="a JSON list to rank instead of the model's own, for vqa"
    )
    command.add_argument(
        "--beams",
        type=positive,
        default=1,
        help="of the search for answers in the model's own words; 1: greedy",
    )
    command.add_argument(
        "--count-first-token-twice",
        action="store_true",
        help="rank answers by the published score (default: as the run was configured, else not)",
    )
    command.add_argument("--bf16", action="store_true", help="faster on many machines; moves scores a little")
    command.add_argument("--image-root", default="", help="put before the pictures' paths in --data")
    command.add_argument("--strip-prefix", default="", help="taken away from their beginning first")
    command.add_argument("--detections", default="", help="boxes to choose from, for grounding")
    command.add_argument("--layer", type=int, help="fusion layer of the maps, from 0, for grounding")
    command.add_argument(
        "--shuffle-images",
        action="store_true",
        help="the blind control alone: each picture replaced by another one's",
    )
    command.add_argument("--results", type=Path, metavar="FILE", help="answers as the VQA server takes them")
    command.add_argument("--json", type=Path, metavar="FILE", help="write the figures here as well")
    command.set_defaults(command=evaluate)

    command = commands.add_parser("predict", help="what a model says of pictures and texts")
    tasks = command.add_subparsers(required=True, metavar="TASK")
    for name, (help_text, arguments) in PREDICTIONS.items():
        command = tasks.add_parser(name, help=help_text)
        command.add_argument("model", metavar="MODEL")
        for argument, settings in arguments.items():
            command.add_argument(argument, **settings)
        command.add_argument("--json", type=Path, metavar="FILE", help="write the result here as well")
        command.set_defaults(command=predict, task=name)

    command = commands.add_parser("info", help="parameters, names and sizes of a model")
    command.add_argument(
        "model", metavar="SIZE_OR_MODEL", help=f"{', '.join(SIZES)}, or a run or model directory"
    )
    command.add_argument("--json", action="store_true")
    command.set_defaults(command=info)

    command = commands.add_parser("import", help="make a model directory of a published checkpoint")
    command.add_argument("file", type=Path, metavar="FILE.pth")
    command.add_argument("--out", type=Path, required=True, metavar="MODEL")
    command.add_argument("--image-size", type=int, metavar="PIXELS", help="resize the position embeddings")
    command.add_argument(
        "--heads",
        type=int,
        nargs="+",
        default=[],
        metavar="N",
        help="of image and text encoder (default: width / 64)",
    )
    command.add_argument(
        "--append-sep",
        action=argparse.BooleanOptionalAction,
        help="texts end in [SEP] (default: if named …lavis…)",
    )
    command.add_argument("--tokenizer", type=Path, metavar="FILE", help="a tokenizer.json (default: BERT's)")
    command.add_argument(
        "--answers", type=Path, metavar="FILE", help="JSON list that a VQA model chooses from"
    )
    command.set_defaults(command=import_published)

    command = commands.add_parser("export", help="write a model as the published scripts read it")
    command.add_argument("model", metavar="RUN_OR_MODEL")
    command.add_argument("--official", type=Path, required=True, metavar="FILE.pth")
    command.set_defaults(command=export_published)

    command = commands.add_parser("data", help="the embedded data set, and public ones")
    actions = command.add_subparsers(required=True, metavar="ACTION")
    command = actions.add_parser("export", help="write pictures and the published JSON")
    command.add_argument("name", choices=["pictograms"])
    command.add_argument("--split", default="train")
    command.add_argument("--count", type=int, default=1000)
    command.add_argument("--seed", type=int, default=0)
    command.add_argument("--num-nouns", type=int, default=24)
    command.add_argument("--image-size", type=int, default=128, help="pixels a side")
    command.add_argument("--out", type=Path, required=True)
    command.set_defaults(command=export)

    command = actions.add_parser("prepare", help="the published JSON from a public download (docs/data.md)")
    command.add_argument("name", choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    command.add_argument(
        "--from", dest="source", type=Path, required=True, metavar="DIR", help="the download"
    )
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    command.set_defaults(command=prepare)

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

    command = commands.add_parser("runs", help="the runs in a folder, with state, step and figures")
    command.add_argument("folder", type=Path, nargs="?", default=Path("runs"), metavar="DIR")
    command.set_defaults(command=runs)

    command = commands.add_parser("verify", help="is every file as it was written?")
    command.add_argument("place", type=Path, metavar="RUN_OR_MODEL_OR_IDX")
    command.set_defaults(command=verify)

    command = commands.add_parser(
        "doctor", help="versions, devices, precision, limits and room on this machine"
    )
    command.add_argument("folder", type=Path, nargs="?", default=Path("runs"), metavar="DIR")
    command.set_defaults(command=doctor)
    return parser


def positive(text: str) -> int:
    """A whole number from 1 on."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number
