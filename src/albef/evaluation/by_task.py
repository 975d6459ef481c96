"""How each task is measured (one line a task), and the figures of a model on splits or on own data."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from albef import distributed
from albef.config import DataConfig, TaskName, UserError, is_drawn
from albef.data.class_folders import ONE_EACH, class_folders
from albef.data.sources import Source, open_source
from albef.engine import Engine
from albef.engine.zero_shot import PLAIN
from albef.evaluation.classes import evaluate_entailment, evaluate_nlvr
from albef.evaluation.evaluate import Metric, evaluate_pairs, evaluate_pictograms
from albef.evaluation.grounding import evaluate_grounding
from albef.evaluation.judged import another
from albef.evaluation.protocol import Protocol, protocol
from albef.evaluation.vqa import Asking, check_answers, evaluate_vqa
from albef.evaluation.zero_shot import evaluate_classes
from albef.model.verbs import OF_TWO_IMAGES

# What is measured: the tasks, and classes known by their names alone, for which nothing is trained.
Measurable = TaskName | Literal["classes"]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What to measure, and how."""

    task: Measurable
    asking: Asking  # for questions; its `k` is also the number of candidates that ITM re-ranks
    layer: int | None = None  # fusion layer of the maps for grounding
    blind_alone: bool = False
    results: Path | None = None  # file for the answers to questions
    templates: Sequence[str] = (PLAIN,)  # for classes
    gallery: int = 0  # the number of images to rank, the first ones; 0: all


# Computes the figures of a source. With True every image is replaced by another one: the blind control.
Judge = Callable[[Engine, Source, str, Asked, bool], Iterator[Metric]]


def vqa(engine: Engine, source: Source, name: str, asked: Asked, shuffled: bool) -> Iterator[Metric]:
    """Accuracy of answers."""
    results = None if shuffled else asked.results
    return evaluate_vqa(engine, source, asked.asking, name, shuffled, results)


def entailment(engine: Engine, source: Source, name: str, asked: Asked, shuffled: bool) -> Iterator[Metric]:
    """Accuracy of labels."""
    return evaluate_entailment(engine, source, name, shuffled)


def nlvr(engine: Engine, source: Source, name: str, asked: Asked, shuffled: bool) -> Iterator[Metric]:
    """Accuracy and consistency of judgements."""
    return evaluate_nlvr(engine, source, name, shuffled)


def grounding(engine: Engine, source: Source, name: str, asked: Asked, shuffled: bool) -> Iterator[Metric]:
    """Accuracy of maps and boxes."""
    return evaluate_grounding(engine, source, name, asked.layer, shuffled)


class Measured(NamedTuple):
    """How a task is measured."""

    heads: tuple[str, ...]  # of which a model needs one
    judge: Judge | None = None  # None: measured by recall, or in another task
    by_recall: bool = False
    in_task: TaskName | None = None  # the task that it prepares for, and that is measured instead


MEASURED: dict[Measurable, Measured] = {
    "pretrain": Measured(("contrast", "itm", "pollution"), by_recall=True),
    "retrieval": Measured(("contrast", "itm"), by_recall=True),
    "vqa": Measured(("answer", "answers"), vqa),
    "entailment": Measured(("entailment",), entailment),
    "nlvr": Measured(OF_TWO_IMAGES, nlvr),
    "grounding": Measured(("itm",), grounding),
    "text_assignment": Measured(("text_assignment",), in_task="nlvr"),
    "classes": Measured(("contrast",)),
}


def evaluate_on(
    engine: Engine, data: DataConfig, splits: Sequence[str], seed: int, asked: Asked
) -> dict[str, float]:
    """A task's figures on splits of pictograms, or (as "data") on the user's own file or folder."""
    if asked.task == "classes":
        return chosen(classes_in(engine, data.source, asked), asked)
    measured = MEASURED[asked.task]
    if not can_measure(engine, asked.task):
        raise UserError(
            f"This model was trained for {engine.trained_for}, not for {asked.task}. "
            f"Leave --task out, or choose a model with that head."
        )
    if data.source == "pictograms" and measured.by_recall:
        count, nouns = data.count, data.num_nouns
        found = evaluate_pictograms(engine, splits, seed, count, nouns, asked.asking.k, asked.gallery)
        return chosen(found, asked)
    metrics: dict[str, float] = {}
    drawn = is_drawn(data.source)
    for name in splits if drawn else ["data"]:
        source = open_source(data, name if drawn else "test", seed, engine.config.image_size, asked.task)
        tell(source.notes)
        if data.answer_list and measured.judge is vqa:
            check_answers(Path(data.answer_list), asked.asking.answers, source)
        metrics |= evaluate_task(engine, source, name, asked)
    return metrics


def can_measure(engine: Engine, task: Measurable) -> bool:
    """Whether the model has a head that the task is measured by."""
    return bool(set(MEASURED[task].heads) & set(engine.model.heads))


def classes_in(engine: Engine, folder: str, asked: Asked) -> Iterator[Metric]:
    """The figures of zero-shot classification on a folder with a folder of images for each class."""
    if is_drawn(folder):
        raise UserError(f"{folder}: generated images have no classes; {ONE_EACH}.")
    found = class_folders(Path(os.path.expanduser(folder)))
    tell(found.notes)
    yield from evaluate_classes(engine, found, asked.templates)


def tell(notes: Sequence[str]) -> None:
    """Prints notes on the data, in one of the processes."""
    if distributed.rank() == 0:
        for note in notes:
            print(note, file=sys.stderr)


def evaluate_task(engine: Engine, source: Source, name: str, asked: Asked) -> dict[str, float]:
    """The task's figures on a source, and under "blind" the same figures with every image replaced by another one."""
    measured = MEASURED[asked.task]
    if measured.by_recall:
        return chosen(evaluate_pairs(engine, source, asked.asking.k, name, asked.gallery), asked)
    metrics: dict[str, float] = {}
    if measured.judge is not None:
        if not asked.blind_alone:
            metrics |= measured.judge(engine, source, name, asked, False)
        if asked.blind_alone or another(source, 0, source.record(0, 0)) is not None:
            metrics |= measured.judge(engine, source, f"{name}/blind", asked, True)
    return metrics


def chosen(metrics: Iterator[Metric], asked: Asked) -> dict[str, float]:
    """The task's figures, with or without the blind control, as asked for."""
    return {name: value for name, value in metrics if not asked.blind_alone or "/blind/" in name}


def task_of(engine: Engine) -> Measurable:
    """The task that a model was trained for. If it does not say, its heads tell."""
    if engine.trained is not None:
        return engine.trained.task
    heads = set(engine.model.heads)
    own = (task for task, measured in MEASURED.items() if measured.judge and set(measured.heads) & heads)
    return "retrieval" if set(MEASURED["retrieval"].heads) & heads else next(own, "retrieval")


def protocol_of(engine: Engine, task: Measurable, data: str) -> Protocol | None:
    """The protocol that figures of retrieval belong to. None for other tasks."""
    return protocol(engine.trained, data) if MEASURED[task].by_recall else None


def facts_of(found: Protocol | None) -> dict[str, str]:
    """The protocol as entries of `metrics.json`."""
    return {"protocol": found.name, "protocol_in_words": found.sentence} if found else {}
