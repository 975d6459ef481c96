"""The command `albef`: parses and calls. Heavy modules are imported inside the commands, so that help is quick."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from albef import __version__
from albef.config import SIZES, Config, DataConfig, TaskName, TrainConfig, UserError
from albef.data.prepare import NAMES

INTERRUPTED = 130


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


def make_room(*files: Path | None) -> None:
    """Makes the folders that results will be written into, before anything is computed."""
    for file in files:
        if file is not None:
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"{file}: can't be written there ({error.strerror}); name another file."
                ) from None


def train(given: argparse.Namespace, settings: list[str]) -> None:
    """`albef train`"""
    from albef.recipe import dump_config, load_recipe

    if given.init:
        settings = [*settings, f"--train.init={given.init}"]
    if (given.recipe is None) == (given.resume is None):
        raise UserError("albef train takes either a recipe or --resume RUN.")
    if given.resume and given.out:
        raise UserError("--resume RUN goes on in that folder: leave --out away.")
    if given.resume and not (given.resume / "config.yaml").is_file():
        raise UserError(f"{given.resume}: holds no run (there is no config.yaml).")
    config = load_recipe(given.resume / "config.yaml" if given.resume else given.recipe, settings)
    if given.print_config:
        print(dump_config(config), end="")
        return
    from albef.run import run
    from albef.train.loop import Interrupted

    out = given.resume or given.out or Path("runs") / given.recipe.stem
    try:
        run(config, out, given.allow_changes)
    except Interrupted as stop:
        print(f"albef: {stop} Go on with albef train --resume {out}", file=sys.stderr)
        sys.exit(stop.exit_code)


def estimate(given: argparse.Namespace, settings: list[str]) -> None:
    """`albef estimate`"""
    from rich.console import Console
    from rich.table import Table

    from albef.estimate import estimate as measure
    from albef.recipe import load_recipe

    found = measure(load_recipe(given.recipe, settings))
    table = Table(show_header=False, title=f"{given.recipe}, each process")
    table.add_row("parameters", f"{found.parameters:,}")
    for name in ("weights", "teacher", "optimizer", "memory"):
        table.add_row(
            {
                "weights": "weights and gradients",
                "teacher": "teacher and queue",
                "memory": "memory there is",
            }.get(name, name),
            f"{getattr(found, f'{name}_bytes') / 2**20:,.1f} MB",
        )
    table.add_row("activations a pair", f"{found.activation_bytes_per_pair / 2**20:,.2f} MB")
    table.add_row("largest train.micro_batch_size that fits", f"{found.largest_micro_batch:,}")
    table.add_row("pairs a second, all processes", f"{1 / found.seconds_per_pair:,.0f}")
    table.add_row("an epoch", f"{found.seconds_per_epoch / 60:,.1f} minutes")
    table.add_row("the whole run, at the pace of its end", f"{found.seconds_in_all / 3600:,.2f} hours")
    Console(markup=False).print(table)


def evaluate(given: argparse.Namespace) -> None:
    """`albef evaluate`"""
    import torch
    from rich.console import Console

    from albef import distributed
    from albef.engine import Engine
    from albef.evaluation.evaluate import write_metrics
    from albef.evaluation.tables import tables
    from albef.evaluation.vqa import Asking
    from albef.model_directory import read_answers
    from albef.run import Asked, config_of, data_to_measure, evaluate_on, facts_of, protocol_of, task_of

    make_room(given.json, given.results)
    with distributed.group(TrainConfig().timeout_seconds, torch.cuda.is_available()):
        engine = Engine.load(given.model, quiet=distributed.rank() > 0, bf16=given.bf16)
        task = given.task or task_of(engine)
        trained = config_of(Path(given.model))
        data = DataConfig(given.data) if given.data else data_to_measure(trained, task)
        data = dataclasses.replace(
            data,
            count=given.count,
            num_nouns=given.num_nouns or (trained or Config()).data.num_nouns,
            image_root=given.image_root or data.image_root,
            detections=given.detections or data.detections,
            answer_list=str(given.answers or ""),
        )
        answers = read_answers(given.answers) if given.answers else engine.answers
        twice = given.count_first_token_twice or (trained or Config()).task.count_first_token_twice
        asking = Asking(answers, given.top_k, given.beams, twice)
        asked = Asked(task, asking, given.layer, given.shuffle_images, given.results)
        metrics = evaluate_on(engine, data, given.split or ["test", "unseen_vendor"], given.seed, asked)
        if distributed.rank() > 0:
            return
    console = Console(markup=False)
    for table in tables(metrics):
        console.print(table)
    found = protocol_of(engine, task, data.source)
    if found:
        console.print(found.sentence)
    if given.json:
        write_metrics(given.json, metrics, facts_of(found))


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


def predict(given: argparse.Namespace) -> None:
    """`albef predict`"""
    from rich.console import Console
    from rich.table import Table

    from albef.data.pictures import SUFFIXES
    from albef.engine import Engine
    from albef.evaluation.evaluate import write_json

    make_room(given.json, given.out if given.task == "grounding" else None)
    engine = Engine.load(given.model, quiet=True)
    result: dict[str, Any]
    title = given.query if given.task == "retrieval" else given.text
    if given.task == "retrieval":
        by_picture = Path(given.query).suffix.lower() in SUFFIXES
        rank = engine.rank_texts if by_picture else engine.rank
        result = {given.gallery[hit.number]: hit.score for hit in rank(given.query, given.gallery, given.k)}
    elif given.task == "match":
        result = {"match": float(engine.match([given.picture], [given.text])[0])}
    elif given.task == "vqa":
        result = dict(engine.answer(given.picture, given.text, given.candidates, given.k))
    elif given.task == "entailment":
        result = engine.entails(given.picture, given.text)
    elif given.task == "nlvr":
        result = {"true": engine.judge(given.picture, given.second, given.text)}
    else:
        from albef.report.plots import grounding_picture

        found = engine.ground(given.picture, given.text, given.score, given.layer)
        result = dict(zip(("left", "top", "width", "height"), found.box, strict=True))
        sheet = given.out or given.picture.with_name(f"{given.picture.stem}-grounding.png")
        grounding_picture(given.picture, given.text, found, sheet)
        print(f"Picture with map and box: {sheet}")
    table = Table(title=title, show_header=False)
    for name, value in result.items():
        table.add_row(str(name), f"{value:.3f}")
    Console(markup=False).print(table)
    if given.json:
        write_json(given.json, result)


def info(given: argparse.Namespace) -> None:
    """`albef info`"""
    from rich.console import Console
    from rich.table import Table

    from albef.info import model_facts

    facts = model_facts(given.model)
    if given.json:
        print(json.dumps(facts, indent=1))
        return
    table = Table(show_header=False, title=given.model)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if isinstance(value, int) else str(value))
    Console(markup=False).print(table)


def import_published(given: argparse.Namespace) -> None:
    """`albef import`"""
    from rich.console import Console

    from albef.exchange.account import table
    from albef.exchange.importing import Choices, import_checkpoint

    choices = Choices(given.image_size, tuple(given.heads), given.append_sep, given.tokenizer, given.answers)
    structure, rows = import_checkpoint(given.file, given.out, choices)
    Console(markup=False).print(table(f"{given.file.name}: {structure.name}", rows))
    print(f"Model: {given.out}")


def export_published(given: argparse.Namespace) -> None:
    """`albef export`"""
    from rich.console import Console

    from albef.exchange.account import table
    from albef.exchange.exporting import export_official

    make_room(given.official)
    structure, rows = export_official(given.model, given.official)
    Console(markup=False).print(table(f"{given.official.name}: {structure.name}", rows))


def export(given: argparse.Namespace) -> None:
    """`albef data export`"""
    from albef.data.pictograms.export import export_pictograms

    annotations = export_pictograms(
        given.out, given.split, given.count, given.seed, given.num_nouns, given.image_size
    )
    print(f"{given.count} pictures in {given.out / 'images'}, captions in {annotations}")


def prepare(given: argparse.Namespace) -> None:
    """`albef data prepare`"""
    from rich.console import Console
    from rich.table import Table

    from albef.data.prepare.sets import prepare as write
    from albef.data.prepare.writing import MISSING_FILE

    prepared = write(given.name, given.source, given.out)
    table = Table("file", "rows", "left out", title=f"{given.name} in {given.out}")
    for file in prepared.files:
        table.add_row(file.name, f"{file.rows:,}", f"{file.left_out:,}")
    Console(markup=False).print(table)
    if prepared.missing:
        print(
            f"{prepared.missing:,} pictures are missing or empty (listed in {given.out / MISSING_FILE}); "
            f"their rows were left out."
        )
    print(f"Pictures stay below {given.source}. Train with\n{prepared.command}")


def index(given: argparse.Namespace) -> None:
    """`albef index`"""
    from albef.engine import Engine
    from albef.search.index import build_index, find_pictures

    built = build_index(Engine.load(given.model), find_pictures(given.pictures), given.out)
    skipped = (
        f"; {built.num_skipped} unreadable ones are listed in skipped.jsonl there"
        if built.num_skipped
        else ""
    )
    print(f"{len(built)} pictures indexed in {given.out}{skipped}")


def search(given: argparse.Namespace) -> None:
    """`albef search`"""
    from rich.console import Console

    from albef.data.pictures import SUFFIXES
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


def runs(given: argparse.Namespace) -> None:
    """`albef runs`"""
    from rich.console import Console
    from rich.table import Table

    from albef.runs import runs_in

    table = Table("run", "state", "step", "of", "figure", title=str(given.folder))
    for run in runs_in(given.folder):
        name = run.folder.relative_to(given.folder)
        table.add_row(str(name), run.state, f"{run.step:,}", f"{run.steps:,}", run.figure)
    Console(markup=False).print(table)


def verify(given: argparse.Namespace) -> None:
    """`albef verify`; exits with 1 when something is damaged."""
    from albef.runs import verified

    found = list(verified(given.place))
    for folder, problem in found:
        print(problem or f"{folder}: as it was written")
    if any(problem for _, problem in found):
        sys.exit(1)


def doctor(given: argparse.Namespace) -> None:
    """`albef doctor`"""
    from rich.console import Console
    from rich.table import Table

    from albef.doctor import findings

    table = Table("", "found", "advice", show_header=False)
    for row in findings(given.folder):
        table.add_row(*row)
    Console(markup=False).print(table)
