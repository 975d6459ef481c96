"""`albef evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from albef.cli.arguments import (
    LARGEST_SEED,
    Commands,
    add_json,
    add_machine,
    add_regions,
    load_engine,
    output_file,
    whole,
)
from albef.config import Config, DataConfig, EvaluateConfig, TaskName, TrainConfig, UserError, is_drawn
from albef.progress import console
from albef.writing import STANDARD_OUTPUT, check_file

if TYPE_CHECKING:
    from albef.evaluation.by_task import Measurable

WANTED = EvaluateConfig()
# Options that apply only to some data or some tasks.
OF_PICTOGRAMS = ("split", "seed", "count", "num_nouns")
OF_OWN_DATA = ("image_root", "strip_prefix", "detections")
OF_FILES = ("image_root", "strip_prefix")
OF_TASK: dict[Measurable, tuple[str, ...]] = {
    "vqa": ("answers", "beams", "count_first_token_twice", "results"),
    "grounding": ("detections", "layer"),
    "classes": ("templates",),
}
TO_MEASURE: tuple[Measurable, ...] = (*get_args(TaskName), "classes")


def add(commands: Commands) -> None:
    """Adds the command and its arguments."""
    command = commands.add_parser(
        "evaluate",
        help="measure a model on test data",
        description="Measures a model on the task that it was trained for. Prints its figures with 95 % intervals, "
        "beside those of the blind control: the same texts with the images of others.",
        usage="albef evaluate RUN_OR_MODEL [--data FILE] [OPTIONS]",
        epilog="examples:\n  albef evaluate runs/quickstart --split test\n"
        "  albef evaluate runs/quickstart --data my-test/test.json\n"
        "  albef evaluate runs/quickstart --task classes --data my-classes\n"
        "  albef evaluate runs/uniter --data test.json --regions regions --gallery 99",
    )
    command.add_argument(
        "model", metavar="RUN_OR_MODEL", help="run, model directory or model of the Hugging Face hub"
    )
    command.add_argument(
        "--data",
        default="",
        metavar="FILE",
        help="annotation file or folder of images; pictograms: generated images; task classes: folder with a folder of "
        "images for each class (default: data.validation of the run, else pictograms)",
    )
    command.add_argument(
        "--task",
        choices=TO_MEASURE,
        metavar="TASK",
        help=f"task to measure: {', '.join(TO_MEASURE)} (zero-shot classification) "
        "(default: the one that the model was trained for)",
    )
    command.add_argument(
        "--top-k",
        "--k-test",
        type=whole(1),
        default=WANTED.top_k,
        metavar="N",
        help="number of candidates that ITM re-ranks, the best by ITC; vqa: number of answers that are scored in full",
    )
    command.add_argument(
        "--gallery",
        type=whole(1),
        default=WANTED.gallery,
        metavar="N",
        help="rank only the first N images, with their texts. UNITER, OSCAR and LXMERT match each of them with each "
        "text, which takes long for many (default: all)",
    )
    command.add_argument(
        "--shuffle-images",
        action="store_true",
        help="measure only the blind control: every text gets the image of another one",
    )
    add_regions(command, "data.regions of the run")
    add_json(command, "the figures")
    add_machine(command)
    add_data(command)
    add_tasks(command)
    command.set_defaults(command=evaluate)


def add_data(command: argparse.ArgumentParser) -> None:
    """Adds the options that apply only to pictograms, or only to own data."""
    drawn = command.add_argument_group("pictograms (generated images)")
    splits = ", ".join(WANTED.splits)
    drawn.add_argument(
        "--split",
        action="append",
        metavar="SPLIT",
        help=f"split to measure; repeat the option for several (default: {splits})",
    )
    drawn.add_argument(
        "--seed",
        type=whole(0, LARGEST_SEED),
        metavar="N",
        help=f"random seed of the test images (default: {WANTED.seed})",
    )
    drawn.add_argument(
        "--count", type=whole(1), metavar="N", help=f"number of test images (default: {WANTED.count})"
    )
    drawn.add_argument(
        "--num-nouns",
        type=whole(1),
        metavar="N",
        help="number of different things in the images (default: as in training, else 24)",
    )
    own = command.add_argument_group("your own data")
    own.add_argument(
        "--image-root",
        metavar="DIR",
        help="folder that the file's image paths start from (default: the folder of the file)",
    )
    own.add_argument(
        "--strip-prefix", metavar="TEXT", help="text to remove from the beginning of every image path"
    )


def add_tasks(command: argparse.ArgumentParser) -> None:
    """Adds the options that apply only to some tasks."""
    asked = command.add_argument_group("task vqa")
    asked.add_argument(
        "--answers",
        type=Path,
        metavar="FILE",
        help="JSON list of the answers to choose from (default: the list of the model)",
    )
    asked.add_argument(
        "--beams", type=whole(1), metavar="N", help="beam width for free-form answers (default: 1 = greedy)"
    )
    asked.add_argument(
        "--count-first-token-twice",
        action="store_true",
        default=None,
        help="score answers as the published code did, which counts their first token twice "
        "(default: as in training)",
    )
    asked.add_argument(
        "--results",
        type=output_file,
        metavar="FILE",
        help="also write the answers to this file, in the format of the VQA server (default: no file)",
    )
    grounded = command.add_argument_group("task grounding")
    grounded.add_argument(
        "--detections",
        metavar="FILE",
        help="JSON file of proposed boxes (default: data.detections of the run, if --data is not given)",
    )
    grounded.add_argument(
        "--layer",
        type=whole(0),
        metavar="N",
        help="fusion layer of the published maps, counted from 0 (default: the third of six)",
    )
    classified = command.add_argument_group("task classes")
    classified.add_argument(
        "--templates",
        metavar="FILE",
        help="text file with a sentence a line, and {} where the name of a class goes; openai: the 80 that OpenAI "
        "measured CLIP with (default: a photo of a {}.)",
    )


def check_meaning(given: argparse.Namespace, task: Measurable, source: str) -> None:
    """Raises `UserError` for an option that has no effect on this task or this data."""
    drawn = is_drawn(source)
    idle = dict.fromkeys(OF_OWN_DATA, "pictograms") if drawn else {}
    idle |= {} if drawn else dict.fromkeys(OF_PICTOGRAMS, f"{source}, all of which is measured")
    if not drawn and os.path.isdir(os.path.expanduser(source)):
        idle |= dict.fromkeys(OF_FILES, f"the folder {source}, whose images are where they are found")
    for name in (name for name in idle if getattr(given, name) is not None):
        raise UserError(f"{flag(name)} has no effect on {idle[name]}: leave it out.")
    for own, names in OF_TASK.items():
        for name in names:
            if own != task and getattr(given, name) is not None:
                raise UserError(
                    f"{flag(name)} is for the task {own}, but the task here is {task}: leave it out."
                )


def flag(name: str) -> str:
    """An option as the user types it."""
    return f"--{name.replace('_', '-')}"


def evaluate(given: argparse.Namespace) -> None:
    """`albef evaluate`"""
    from albef import distributed
    from albef.engine.zero_shot import PLAIN, templates_of
    from albef.evaluation.by_task import Asked, evaluate_on, facts_of, protocol_of, task_of
    from albef.evaluation.evaluate import write_metrics
    from albef.evaluation.tables import tables
    from albef.evaluation.vqa import Asking
    from albef.model_directory import read_answers
    from albef.run import config_of, data_to_measure

    check_file(
        given.json, given.results, inputs=(given.data, given.answers, given.detections, given.templates)
    )
    with distributed.group(TrainConfig().timeout_seconds, given.device):
        trained = config_of(Path(given.model))
        learned = trained or Config()
        regions = given.regions or learned.data.regions
        engine = load_engine(given, quiet=distributed.rank() > 0, regions=regions)
        task = given.task or task_of(engine)
        data = DataConfig(given.data) if given.data else data_to_measure(trained, task)
        check_meaning(given, task, data.source)
        data = dataclasses.replace(
            data,
            count=given.count or WANTED.count,
            num_nouns=given.num_nouns or learned.data.num_nouns,
            image_root=given.image_root or data.image_root,
            strip_prefix=given.strip_prefix or data.strip_prefix,
            detections=given.detections or data.detections,
            regions=regions,
            answer_list=str(given.answers or ""),
        )
        answers = read_answers(given.answers) if given.answers else engine.answers
        twice = given.count_first_token_twice or learned.task.count_first_token_twice
        asking = Asking(answers, given.top_k, given.beams or WANTED.beams, twice)
        templates = templates_of(given.templates) if given.templates else (PLAIN,)
        asked = Asked(
            task, asking, given.layer, given.shuffle_images, given.results, templates, given.gallery
        )
        seed = WANTED.seed if given.seed is None else given.seed
        metrics = evaluate_on(engine, data, given.split or WANTED.splits, seed, asked)
        if distributed.rank() > 0:
            return
    found = protocol_of(engine, task, data.source)
    if given.json:  # before printing, which fails when the reader has gone
        write_metrics(given.json, metrics, facts_of(found))
    if given.json == STANDARD_OUTPUT:
        return
    for table in tables(metrics):
        console().print(table)
    if found:
        print(found.sentence)
