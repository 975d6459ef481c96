"""`albef evaluate`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import get_args

from albef.cli.arguments import Commands, output_file, positive
from albef.config import Config, DataConfig, TaskName, TrainConfig
from albef.progress import console
from albef.writing import check_file


def add(commands: Commands) -> None:
    """The command's arguments."""
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
    command.add_argument("--layer", type=int, help="fusion layer of the published map, from 0, for grounding")
    command.add_argument(
        "--shuffle-images",
        action="store_true",
        help="the blind control alone: each picture replaced by another one's",
    )
    command.add_argument(
        "--results", type=output_file, metavar="FILE", help="answers as the VQA server takes them"
    )
    command.add_argument("--json", type=output_file, metavar="FILE", help="write the figures here as well")
    command.set_defaults(command=evaluate)


def evaluate(given: argparse.Namespace) -> None:
    """`albef evaluate`"""
    import torch

    from albef import distributed
    from albef.engine import Engine
    from albef.evaluation.by_task import Asked, evaluate_on, facts_of, protocol_of, task_of
    from albef.evaluation.evaluate import write_metrics
    from albef.evaluation.tables import tables
    from albef.evaluation.vqa import Asking
    from albef.model_directory import read_answers
    from albef.run import config_of, data_to_measure

    check_file(given.json, given.results)
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
    found = protocol_of(engine, task, data.source)
    if given.json:  # first: nobody may be reading what is printed
        write_metrics(given.json, metrics, facts_of(found))
    for table in tables(metrics):
        console().print(table)
    if found:
        print(found.sentence)
