"""`albef predict`: one verb for each thing that a model can be asked."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from albef.cli.arguments import (
    Commands,
    add_machine,
    json_file,
    load_engine,
    names_a_file,
    output_file,
    whole,
)
from albef.progress import console
from albef.writing import STANDARD_OUTPUT, check_file

if TYPE_CHECKING:
    from albef.engine import Engine


class Verb(NamedTuple):
    """What a model is asked, the arguments of the question, and who answers: a number by name."""

    help: str
    arguments: dict[str, dict[str, Any]]
    answer: Callable[[Engine, argparse.Namespace], dict[str, float]]


def match(engine: Engine, given: argparse.Namespace) -> dict[str, float]:
    """The probability of a match."""
    return {"match": float(engine.match([given.picture], [given.text])[0])}


def retrieval(engine: Engine, given: argparse.Namespace) -> dict[str, float]:
    """The score of each hit."""
    from albef.engine import IMAGES_AT_ONCE, TEXTS_AT_ONCE

    size = given.batch_size
    if not names_a_file(given.text):
        hits = engine.rank(given.text, given.gallery, given.k, size or IMAGES_AT_ONCE)
    else:
        hits = engine.rank_texts(given.text, given.gallery, given.k, size or TEXTS_AT_ONCE)
    return {given.gallery[hit.number]: hit.score for hit in hits}


def vqa(engine: Engine, given: argparse.Namespace) -> dict[str, float]:
    """The probability of each answer."""
    return dict(engine.answer(given.picture, given.text, given.candidates, given.k))


def entailment(engine: Engine, given: argparse.Namespace) -> dict[str, float]:
    """The probability of each label."""
    return engine.entails(given.picture, given.text)


def nlvr(engine: Engine, given: argparse.Namespace) -> dict[str, float]:
    """The probability that the statement is true."""
    return {"true": engine.judge(given.picture, given.second, given.text)}


def grounding(engine: Engine, given: argparse.Namespace) -> dict[str, float]:
    """The sides of the box, in pixels."""
    from albef.report.plots import grounding_image

    found = engine.ground(given.picture, given.text, given.score, given.layer)
    if given.out:
        grounding_image(given.picture, given.text, found, given.out)
        said = f"Picture with map and box: {given.out}"
    else:
        said = "With --out PNG the map and the box are drawn into a picture."
    print(said, file=sys.stderr if given.json == STANDARD_OUTPUT else sys.stdout)
    return dict(zip(("left", "top", "width", "height"), found.box, strict=True))


IMAGE: dict[str, Any] = {"type": Path, "metavar": "IMAGE", "help": "image file"}
VERBS: dict[str, Verb] = {
    "match": Verb(
        "how well a text fits an image",
        {"picture": IMAGE, "text": {"metavar": "TEXT", "help": "what the image may show"}},
        match,
    ),
    "retrieval": Verb(
        "which images fit a text best, or which texts fit an image",
        {
            "text": {"metavar": "QUERY", "help": "text, or image file"},
            "gallery": {
                "nargs": "+",
                "metavar": "GALLERY",
                "help": "images for a text, texts for an image",
            },
            "-k": {"type": whole(1), "default": 10, "help": "hits to show"},
            "--batch-size": {"type": whole(1), "metavar": "N", "help": "images or texts in a pass"},
        },
        retrieval,
    ),
    "vqa": Verb(
        "answer a question about an image",
        {
            "picture": IMAGE,
            "text": {"metavar": "QUESTION", "help": "about the image"},
            "--candidates": {
                "nargs": "+",
                "metavar": "ANSWER",
                "help": "answers to choose from (default: the model's own)",
            },
            "-k": {"type": whole(1), "default": 5, "help": "answers to show"},
        },
        vqa,
    ),
    "entailment": Verb(
        "whether an image entails a sentence",
        {"picture": IMAGE, "text": {"metavar": "SENTENCE", "help": "about the image"}},
        entailment,
    ),
    "nlvr": Verb(
        "whether a statement is true of two images",
        {"picture": IMAGE, "second": IMAGE, "text": {"metavar": "STATEMENT", "help": "about both images"}},
        nlvr,
    ),
    "grounding": Verb(
        "where in an image is what a phrase means",
        {
            "picture": IMAGE,
            "text": {"metavar": "PHRASE", "help": "what to find in the image"},
            "--score": {"choices": ["itc", "itm"], "default": "itc", "help": "score whose map is drawn"},
            "--layer": {"type": whole(0), "help": "draw the published map of this fusion layer, from 0"},
            "--out": {"type": output_file, "metavar": "PNG", "help": "image to write, with map and box"},
        },
        grounding,
    ),
}


def add(commands: Commands) -> None:
    """The verbs' arguments."""
    command = commands.add_parser("predict", help="ask a model about images and texts")
    verbs = command.add_subparsers(required=True, metavar="TASK")
    for name, verb in VERBS.items():
        command = verbs.add_parser(name, help=verb.help)
        command.add_argument("model", metavar="MODEL", help="run, model directory or hub id")
        for argument, settings in verb.arguments.items():
            command.add_argument(argument, **settings)
        command.add_argument(
            "--json",
            type=json_file,
            metavar="FILE",
            help="write the result here too; -: print it, and nothing else",
        )
        add_machine(command)
        command.set_defaults(command=predict, answer=verb.answer, out=None)


def predict(given: argparse.Namespace) -> None:
    """`albef predict`"""
    from rich.table import Table

    from albef.writing import write_json

    named = (getattr(given, name, None) for name in ("text", "picture", "second"))
    check_file(given.json, given.out, inputs=(*named, *getattr(given, "gallery", ())))
    result = given.answer(load_engine(given, quiet=True), given)
    table = Table(title=given.text, show_header=False)
    for name, value in result.items():
        table.add_row(str(name), f"{value:.3f}")
    if given.json:
        write_json(given.json, result)
    if given.json == STANDARD_OUTPUT:
        return
    console().print(table)
