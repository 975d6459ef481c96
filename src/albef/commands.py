"""What each command of `albef` does. Heavy modules are imported inside, so that help is quick."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from albef.config import Config, DataConfig, TrainConfig, UserError
from albef.writing import check_file


def make_room(*files: Path | None) -> None:
    """Makes the folders that results will be written into, before anything is computed."""
    for file in files:
        if file is not None:
            check_file(file)


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
            strip_prefix=given.strip_prefix or data.strip_prefix,
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


def predict(given: argparse.Namespace) -> None:
    """`albef predict`"""
    from rich.console import Console
    from rich.table import Table

    from albef.data.formats import SUFFIXES
    from albef.engine import Engine
    from albef.writing import write_json

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

    from albef.data.formats import SUFFIXES
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
