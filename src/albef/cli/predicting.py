"""`albef predict`: one verb for each question that a model can answer."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from albef.cli.arguments import (
    Commands,
    Help,
    add_json,
    add_machine,
    add_regions,
    load_engine,
    output_file,
    query_of,
    whole,
)
from albef.progress import console
from albef.writing import STANDARD_OUTPUT, check_file

if TYPE_CHECKING:
    from albef.engine import Engine


class Verb(NamedTuple):
    """A question to a model: what it prints, its arguments, the function that answers it, and an example of them."""

    help: str
    arguments: dict[str, dict[str, Any]]
    answer: Callable[[Engine, argparse.Namespace], dict[str, float]]
    example: str  # what follows MODEL


def match(engine: Engine, given: argparse.Namespace) -> dict[str, float]:
    """The probability that image and text match."""
    return {"match": float(engine.match([given.picture], [given.text])[0])}


def retrieval(engine: Engine, given: argparse.Namespace) -> dict[str, float]:
    """The score of each hit, by its file or text; the best first."""
    from albef.engine import IMAGES_AT_ONCE, TEXTS_AT_ONCE

    query, size = query_of(given.text), given.batch_size
    if isinstance(query, str):
        hits = engine.rank(query, given.gallery, given.k, size or IMAGES_AT_ONCE)
    else:
        hits = engine.rank_texts(query, given.gallery, given.k, size or TEXTS_AT_ONCE)
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
    """The box, in pixels of the image."""
    from albef.report.plots import grounding_image

    found = engine.ground(given.picture, given.text, given.score, given.layer)
    if given.out:
        grounding_image(given.picture, given.text, found, given.out)
        said = f"Image with map and box: {given.out}"
    else:
        said = "To see map and box in the image, add --out FILE.png."
    print(said, file=sys.stderr if given.json == STANDARD_OUTPUT else sys.stdout)
    return dict(zip(("left", "top", "width", "height"), found.box, strict=True))


IMAGE: dict[str, Any] = {"type": Path, "metavar": "IMAGE", "help": "image file"}
VERBS: dict[str, Verb] = {
    "match": Verb(
        "the probability that a text describes an image",
        {"picture": IMAGE, "text": {"metavar": "TEXT", "help": "text that may describe the image"}},
        match,
        'a.jpg "a fox on the left"',
    ),
    "retrieval": Verb(
        "the images that fit a text best, or the texts that fit an image best",
        {
            "text": {"metavar": "QUERY", "help": "a text, or an image file"},
            "gallery": {
                "nargs": "+",
                "metavar": "GALLERY",
                "help": "what to rank: image files if QUERY is a text, texts if it is an image",
            },
            "-k": {"type": whole(1), "default": 10, "metavar": "N", "help": "number of results"},
            "--batch-size": {
                "type": whole(1),
                "metavar": "N",
                "help": "images or texts to encode at once; fewer need less memory (default: 64 images, 256 texts)",
            },
        },
        retrieval,
        '"two foxes" a.jpg b.jpg c.jpg',
    ),
    "vqa": Verb(
        "the answer to a question about an image",
        {
            "picture": IMAGE,
            "text": {"metavar": "QUESTION", "help": "question about the image"},
            "--candidates": {
                "nargs": "+",
                "metavar": "ANSWER",
                "help": "answers to choose from (default: the list of the model)",
            },
            "-k": {"type": whole(1), "default": 5, "metavar": "N", "help": "number of answers"},
        },
        vqa,
        'a.jpg "how many foxes are there?"',
    ),
    "entailment": Verb(
        "whether a sentence follows from an image, contradicts it, or neither",
        {"picture": IMAGE, "text": {"metavar": "SENTENCE", "help": "sentence about the image"}},
        entailment,
        'a.jpg "there are two foxes"',
    ),
    "nlvr": Verb(
        "the probability that a statement about two images is true",
        {
            "picture": IMAGE,
            "second": IMAGE,
            "text": {"metavar": "STATEMENT", "help": "statement about both images"},
        },
        nlvr,
        'left.jpg right.jpg "both images show a fox"',
    ),
    "grounding": Verb(
        "the box, in pixels, of what a phrase describes in an image",
        {
            "picture": IMAGE,
            "text": {"metavar": "PHRASE", "help": "phrase for what to find in the image"},
            "--score": {
                "choices": ["itc", "itm"],
                "default": "itc",
                "metavar": "SCORE",
                "help": "score whose map is used: itc or itm",
            },
            "--layer": {
                "type": whole(0),
                "metavar": "N",
                "help": "use the published map of this fusion layer, counted from 0 (default: the map of --score)",
            },
            "--out": {
                "type": output_file,
                "metavar": "PNG",
                "help": "also draw map and box into the image and write it here (default: no file)",
            },
        },
        grounding,
        'a.jpg "the fox on the left" --out found.png',
    ),
}


def add(commands: Commands) -> None:
    """Adds a command for each verb."""
    command = commands.add_parser(
        "predict",
        help="ask a model about your images and texts",
        description="Asks a model about your images and texts. Prints a table of numbers.",
    )
    command.formatter_class = Help
    verbs = command.add_subparsers(required=True, title="tasks", metavar="TASK")
    for name, verb in VERBS.items():
        command = verbs.add_parser(
            name,
            help=verb.help,
            description=f"Prints {verb.help}.",
            epilog=f"example:\n  albef predict {name} MODEL {verb.example}",
        )
        command.add_argument(
            "model", metavar="MODEL", help="run, model directory or model of the Hugging Face hub"
        )
        for argument, settings in verb.arguments.items():
            command.add_argument(argument, **settings)
        add_regions(command, "an .npz beside each image")
        add_json(command, "the result")
        add_machine(command)
        command.set_defaults(command=predict, answer=verb.answer, out=None)


def predict(given: argparse.Namespace) -> None:
    """`albef predict`"""
    from rich.table import Table

    from albef.writing import write_json

    named = (getattr(given, name, None) for name in ("text", "picture", "second"))
    check_file(given.json, given.out, inputs=(*named, *getattr(given, "gallery", ())))
    result = given.answer(load_engine(given, quiet=True, regions=given.regions), given)
    table = Table(title=given.text, show_header=False)
    for name, value in result.items():
        table.add_row(str(name), f"{value:.3f}")
    if given.json:
        write_json(given.json, result)
    if given.json == STANDARD_OUTPUT:
        return
    console().print(table)
