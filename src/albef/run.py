"""A whole run: prepare its folder, train, export the model, evaluate, write the report."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from albef import distributed
from albef.children import refuse_while_starting
from albef.config import Config, DataConfig, UserError, is_drawn
from albef.data.class_folders import ONE_EACH
from albef.data.region_files import place_of
from albef.data.sources import check_pictograms, open_source
from albef.engine import Engine, choose_device
from albef.evaluation.by_task import (
    MEASURED,
    Asked,
    Measurable,
    can_measure,
    evaluate_on,
    facts_of,
    protocol_of,
)
from albef.evaluation.evaluate import write_metrics
from albef.evaluation.protocol import short
from albef.evaluation.tables import tables
from albef.evaluation.vqa import Asking, check_answered, check_answers, frequent_answers
from albef.lock import alone_in
from albef.model.verbs import HEADS
from albef.model_directory import Trained, check_name, read_answers, save_model
from albef.progress import show
from albef.recipe import dump_config, load_recipe
from albef.systems import SYSTEMS
from albef.tasks.base import Task
from albef.train.checkpoint import checkpoints_in, load_task
from albef.train.device import check_device
from albef.train.initial_encoders import initial_encoders
from albef.train.loop import TOKENIZER_FILE, train
from albef.train.resume import CONFIG_FILE, check_same_run
from albef.train.start import choose_tokenizer, initial_model
from albef.train.stopping import check_main_thread
from albef.writing import write_whole


def run(config: Config, folder: Path, allow_changes: bool = False, report: bool = True) -> None:
    """Trains a configuration in a run folder, then evaluates the model, and writes the report unless told otherwise.

    Continues a run that was interrupted. Under torchrun all its processes work together. Raises `UserError` if another
    training uses the folder, and if the folder holds a run with other settings, unless `allow_changes`.
    """
    refuse_while_starting()
    check_main_thread()
    with contextlib.ExitStack() as held:

        def begin() -> tuple[Config, list[str]]:
            check_free(folder)
            held.enter_context(alone_in(folder))
            answers = answers_of(config)  # before training, since the list may be wrong
            return prepare(config, folder, allow_changes, answers), answers

        with distributed.group(config.train.timeout_seconds, config.train.device):
            config, answers = distributed.from_first(begin)
            train(config, folder, answers)
            distributed.from_first(lambda: export(config, folder, answers))
            quiet = distributed.rank() > 0
            engine = Engine.load(folder / "model", config.train.device, quiet, regions=config.data.regions)
            metrics = evaluate(engine, config)
            if distributed.rank() > 0:
                return
        task = conclude(engine, config, folder, metrics)
        if report:
            # Only needed here: without this import a training restarts faster after a fault.
            from albef.report.report import write_report

            teacher = task.teacher.module if task.teacher is not None else None
            show(f"Report: {write_report(folder, engine, teacher, config)}")


def export(config: Config, folder: Path, answers: Sequence[str]) -> None:
    """Writes the model directory from the newest checkpoint."""
    show(f"Trained. Exporting the model to {folder / 'model'} and evaluating it …")
    task, _ = load_task(checkpoints_in(folder / "checkpoints")[-1], config)
    tokenizer = SYSTEMS[config.model.system].tokenizer.load(folder / TOKENIZER_FILE)
    trained = Trained(config.task.name, short(config.data.source))
    save_model(folder / "model", task.student, tokenizer, model_card(config), answers, trained)


def conclude(engine: Engine, config: Config, folder: Path, metrics: dict[str, float]) -> Task:
    """Writes and shows the figures, and returns the trained task. In one process only."""
    task, facts = load_task(checkpoints_in(folder / "checkpoints")[-1], config)
    seconds, steps = float(facts["seconds"]), config.train.steps
    metrics |= {
        "train/seconds": seconds,
        "train/pairs_per_second": steps * config.train.batch_size / max(seconds, 1e-9),
        "train/steps": steps,
        "train/skipped_steps": int(facts["skipped"]),
    }
    shown = list(tables(metrics))
    data = config.data.validation or config.data.source
    found = protocol_of(engine, config.task.name, data) if shown else None
    write_metrics(folder / "metrics.json", metrics, facts_of(found))
    for table in shown:
        show(table)
    if not shown:
        show(why_unmeasured(config, folder))
    return task


def why_unmeasured(config: Config, folder: Path) -> str:
    """Why a run has no figures, and how to get them."""
    if prepares_for := MEASURED[config.task.name].in_task:
        return (
            f"Nothing is measured: this task prepares for {prepares_for}. Train that from {folder / 'model'}."
        )
    if config.data.validation or is_drawn(config.data.source):
        return f"Nothing is measured: a model that only learns {', '.join(config.task.losses)} ranks nothing."
    return (
        "Nothing is measured: the recipe has no data.validation. Measure the model on data that it was not trained "
        f"on: albef evaluate {folder} --data FILE"
    )


def prepare(config: Config, folder: Path, allow_changes: bool = False, answers: Sequence[str] = ()) -> Config:
    """Prepares a run folder, new or of the same run, and returns the configuration with its final sizes.

    These are those of the vocabulary and of the head of `answers`, if the model chooses from a list.
    """
    # Before anything is written, since there may be no such device.
    check_device(config.train, choose_device(config.train.device))
    tokenizer_file, config_file = folder / TOKENIZER_FILE, folder / CONFIG_FILE
    if config.train.init:
        known = load_recipe(config_file).model if config_file.exists() else None
        config = dataclasses.replace(config, model=initial_model(config, known))
    config = for_answers(config, answers)
    if tokenizer_file.exists():
        tokenizer = SYSTEMS[config.model.system].tokenizer.load(tokenizer_file)
    else:
        tokenizer = choose_tokenizer(config)
    if not config.train.init:  # otherwise the weights set the vocabulary size
        model = dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size)
        config = dataclasses.replace(config, model=model)
    check_evaluation(config)
    if config.data.regions:
        place_of(config.data.regions)
    check_free(folder)
    if config_file.exists():
        check_same_run(folder, config, allow_changes)
    else:
        initial_encoders(config.train, config.model)  # before anything is written, since they may not fit
    folder.mkdir(parents=True, exist_ok=True)
    # The configuration is written first: if the process is killed here, the folder is still recognised as a run.
    write_whole(config_file, dump_config(config))
    if not tokenizer_file.exists():
        tokenizer.save(tokenizer_file, config.model)
    return config


def check_free(folder: Path) -> None:
    """Raises `UserError` for a folder that holds something else than a run, or whose path cannot hold weights."""
    check_name(folder)
    if not os.path.exists(folder) or os.path.exists(folder / CONFIG_FILE):
        return
    if not os.path.isdir(folder):
        raise UserError(f"{folder} is a file, but a run needs a folder. Choose another place with --out.")
    if any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no run. Choose another folder with --out.")


def check_evaluation(config: Config) -> None:
    """Raises `UserError` now if evaluation would fail at the end: for a missing split or file."""
    task, data = config.task.name, config.data
    source = data.source if is_drawn(data.source) else data.validation
    if is_drawn(source):
        for split in config.evaluate.splits:
            check_pictograms(source, split, task)
    elif source:
        validation = dataclasses.replace(data, source=source)
        check_answered(open_source(validation, "test", config.evaluate.seed, task=task))


def evaluate(engine: Engine, config: Config) -> dict[str, float]:
    """The figures that the recipe's `evaluate` section asks for.

    Empty for own data without `data.validation`, and for a model without a head to measure.
    """
    if not can_measure(engine, config.task.name):
        return {}
    wanted, data = config.evaluate, dataclasses.replace(config.data, count=config.evaluate.count)
    if not is_drawn(data.source):
        if not data.validation:
            return {}
        data = dataclasses.replace(data, source=data.validation)
    asked = Asked(
        config.task.name,
        Asking(engine.answers, wanted.top_k, wanted.beams, config.task.count_first_token_twice),
        layer=wanted.layer,
        gallery=wanted.gallery,
    )
    return evaluate_on(engine, data, wanted.splits, wanted.seed, asked)


def answers_of(config: Config) -> list[str]:
    """The default candidates of a model for questions: the recipe's list, or frequent answers in the training data."""
    if "answer" not in MEASURED[config.task.name].heads:
        return []
    source = open_source(config.data, "train", config.train.seed, config.model.image_size, config.task.name)
    if not config.data.answer_list:
        return frequent_answers(source)
    file = Path(os.path.expanduser(config.data.answer_list))
    answers = read_answers(file)
    check_answers(file, answers, source)
    return answers


def for_answers(config: Config, answers: Sequence[str]) -> Config:
    """The configuration, with an output for each answer if the model chooses from a list."""
    if not answers or "answers" not in HEADS[config.model.system]:
        return config
    return dataclasses.replace(config, model=dataclasses.replace(config.model, num_answers=len(answers)))


def config_of(folder: Path) -> Config | None:
    """The configuration of a run, or of the run that a model directory belongs to. None for other models."""
    for candidate in (folder, folder.parent):
        with contextlib.suppress(UserError):
            return load_recipe(candidate / CONFIG_FILE)
    return None


def data_to_measure(trained: Config | None, task: Measurable) -> DataConfig:
    """The default data for measuring a model: the validation data of its run, or pictograms.

    Raises `UserError` for a run on own data without validation data, and for classes, which have no such data.
    """
    if task == "classes":
        raise UserError(f"Task classes has no default data: {ONE_EACH} (--data).")
    if trained is None or is_drawn(trained.data.source):
        return DataConfig("pictograms" if MEASURED[task].by_recall else f"pictograms:{task}")
    if not trained.data.validation:
        raise UserError(
            f"This run was trained on {trained.data.source} and has no data.validation. Name the data to measure on "
            f"with --data."
        )
    return dataclasses.replace(trained.data, source=trained.data.validation)


def model_card(config: Config) -> str:
    """The model card: what people should know about the model."""
    data, train_config, system = config.data, config.train, SYSTEMS[config.model.system]
    article = "An" if system.title[0] in "AEIOU" else "A"
    trained_on = (
        f"{data.num_nouns} nouns of the embedded pictograms (generated scenes, caption noise {data.caption_noise})"
        if data.source == "pictograms"
        else data.source
    )
    return f"""---
library_name: albef
license: apache-2.0
---
# {article} {system.title} model ({config.model.size})

Trained with `albef` on {trained_on}: {train_config.steps} steps of {train_config.batch_size} pairs,
seed {train_config.seed}, images of {config.model.image_size} pixels.

```python
from albef import Engine
engine = Engine.load("path/to/this/folder")
engine.rank("two foxes", ["one.jpg", "another.jpg"])
```

Method: {system.paper}. Nobody has examined this model for bias or for use beyond the data it was trained on.
"""
