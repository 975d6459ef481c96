"""A whole run: prepare its folder, train, export the model, evaluate, report."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

import torch
from rich.console import Console

from albef import distributed
from albef.config import Config, DataConfig, ModelConfig, TaskName, UserError, is_drawn
from albef.data.sources import Source, check_pictograms, open_source
from albef.data.text import Tokenizer, clean_caption
from albef.engine import Engine
from albef.evaluation.classes import evaluate_entailment, evaluate_nlvr
from albef.evaluation.evaluate import Metric, evaluate_pairs, evaluate_pictograms, write_metrics
from albef.evaluation.grounding import evaluate_grounding
from albef.evaluation.judged import another
from albef.evaluation.protocol import Protocol, protocol, short
from albef.evaluation.tables import tables
from albef.evaluation.vqa import Asking, check_answered, check_answers, evaluate_vqa, frequent_answers
from albef.lock import alone_in
from albef.model.albef import ALBEF
from albef.model.maps import layer_of
from albef.model_directory import CONFIG_FILE as MODEL_FILE
from albef.model_directory import Trained, find_model, read_answers, read_config, save_model
from albef.recipe import dump_config, load_recipe
from albef.train.checkpoint import checkpoints_in, load_task
from albef.train.initial_encoders import initial_encoders
from albef.train.loop import TOKENIZER_FILE, train
from albef.train.resume import CONFIG_FILE, check_same_run
from albef.writing import write_whole

VOCABULARY_CAPTIONS = 5000
VOCABULARY_FILE = "vocab.txt"  # BERT's, one piece a line


def run(config: Config, folder: Path, allow_changes: bool = False) -> None:
    """Trains a configuration in a run folder, going on where an earlier attempt stopped, then evaluates and reports.

    Under torchrun its processes do that together. Raises `UserError` if another training is at work in the folder,
    and if it holds a run of another configuration, unless `allow_changes`.
    """
    cuda = config.train.device != "cpu" and torch.cuda.is_available()
    with contextlib.ExitStack() as held:

        def begin() -> Config:
            check_free(folder)
            held.enter_context(alone_in(folder))
            return prepare(config, folder, allow_changes)

        with distributed.group(config.train.timeout_seconds, cuda):
            config = distributed.from_first(begin)
            answers = distributed.from_first(lambda: answers_of(config))  # before training: it may be wrong
            train(config, folder)
            distributed.from_first(lambda: export(config, folder, answers))
            engine = Engine.load(folder / "model", config.train.device, quiet=distributed.rank() > 0)
            metrics = evaluate(engine, config)
            if distributed.rank() > 0:
                return
        conclude(engine, config, folder, metrics)


def export(config: Config, folder: Path, answers: Sequence[str]) -> None:
    """Makes a model directory of the newest checkpoint."""
    Console(markup=False).print(f"Trained. Exporting the model to {folder / 'model'} and evaluating it …")
    task, _ = load_task(checkpoints_in(folder / "checkpoints")[-1], config)
    tokenizer = Tokenizer.load(folder / TOKENIZER_FILE)
    trained = Trained(config.task.name, short(config.data.source))
    save_model(folder / "model", task.student, tokenizer, model_card(config), answers, trained)


def conclude(engine: Engine, config: Config, folder: Path, metrics: dict[str, float]) -> None:
    """Writes and shows what came out, and the report; in one process."""
    # Drawing is needed here only: a training that starts again after a fault is at work sooner without.
    from albef.report.report import write_report

    console = Console(markup=False)
    task, facts = load_task(checkpoints_in(folder / "checkpoints")[-1], config)
    seconds, steps = float(facts["seconds"]), config.train.steps
    metrics |= {
        "train/seconds": seconds,
        "train/pairs_per_second": steps * config.train.batch_size / max(seconds, 1e-9),
        "train/steps": steps,
        "train/skipped_steps": int(facts["skipped"]),
    }
    found = protocol_of(engine, config.task.name, config.data.validation or config.data.source)
    write_metrics(folder / "metrics.json", metrics, facts_of(found))
    for table in tables(metrics):
        console.print(table)
    teacher = task.teacher.module if task.teacher is not None else None
    assert teacher is None or isinstance(teacher, ALBEF)
    console.print(f"Report: {write_report(folder, engine, teacher, config)}")


def prepare(config: Config, folder: Path, allow_changes: bool = False) -> Config:
    """The configuration with its final vocabulary, written into a run folder that is new or holds this very run."""
    tokenizer_file, config_file = folder / TOKENIZER_FILE, folder / CONFIG_FILE
    if config.train.init:
        known = load_recipe(config_file).model if config_file.exists() else None
        config = dataclasses.replace(config, model=initial_model(config, known))
    if tokenizer_file.exists():
        tokenizer = Tokenizer.load(tokenizer_file)
    else:
        tokenizer = choose_tokenizer(config)
    if not config.train.init:  # else the weights say how many word embeddings there are
        model = dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size)
        config = dataclasses.replace(config, model=model)
    check_evaluation(config)
    check_free(folder)
    if config_file.exists():
        check_same_run(folder, config, allow_changes)
    else:
        initial_encoders(config.train, config.model)  # before anything is written: they may not fit
    folder.mkdir(parents=True, exist_ok=True)
    # The configuration first: a process that is killed here leaves a folder that is known as a run.
    write_whole(config_file, dump_config(config))
    if not tokenizer_file.exists():
        tokenizer.save(tokenizer_file)
    return config


def check_free(folder: Path) -> None:
    """Raises `UserError` for a folder that is used for something else than a run."""
    if not folder.exists() or (folder / CONFIG_FILE).exists():
        return
    if not folder.is_dir() or any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no run: choose another folder with --out.")


def check_evaluation(config: Config) -> None:
    """Raises `UserError` for what the run would fail for at its end: a split, a file or a layer that there isn't."""
    task, data = config.task.name, config.data
    if task == "grounding":
        layer_of(config.model.fusion_depth, config.evaluate.layer)
    source = data.source if is_drawn(data.source) else data.validation
    if is_drawn(source):
        for split in config.evaluate.splits:
            check_pictograms(source, split, task)
    elif source:
        validation = dataclasses.replace(data, source=source)
        check_answered(open_source(validation, "test", config.evaluate.seed, task=task))


def initial_model(config: Config, known: ModelConfig | None = None) -> ModelConfig:
    """The model that training starts from, with this recipe's picture size, text length and dropout.

    `known`: that model, where a run has noted it, so that it need not be there any more.
    """
    start, own = known or read_config(find_model(config.train.init)[0] / MODEL_FILE)[0], config.model
    return dataclasses.replace(
        start,
        image_size=own.image_size,
        max_tokens=own.max_tokens,
        max_words=own.max_words,
        dropout=own.dropout,
    )


def choose_tokenizer(config: Config) -> Tokenizer:
    """That of the model or BERT to start from, else BERT's or one of the data's first captions and answers."""
    if config.train.init:
        return Tokenizer.load(find_model(config.train.init)[0] / TOKENIZER_FILE)
    beside = Path(config.train.init_text).expanduser() if config.train.init_text else None
    if beside and (beside / TOKENIZER_FILE).is_file():
        return Tokenizer.load(beside / TOKENIZER_FILE)
    if beside and (beside / VOCABULARY_FILE).is_file():
        return Tokenizer.of_vocabulary(beside / VOCABULARY_FILE)
    if config.model.vocabulary == "bert":
        return Tokenizer.bert()
    source = open_source(config.data, "train", config.train.seed, config.model.image_size, config.task.name)
    records = (source.record(index, 0) for index in range(len(source)))
    texts = (
        text
        for record in islice(records, VOCABULARY_CAPTIONS)
        for text in (*record.captions, *record.answers)
    )
    cleaned = [clean_caption(text, config.model.max_words) for text in texts]
    return Tokenizer.train(cleaned, config.model.vocab_size)


def evaluate(engine: Engine, config: Config) -> dict[str, float]:
    """What the recipe's `evaluate` section asks for; nothing for own data without `data.validation`."""
    wanted, data = config.evaluate, dataclasses.replace(config.data, count=config.evaluate.count)
    if not is_drawn(data.source):
        if not data.validation:
            return {}
        data = dataclasses.replace(data, source=data.validation)
    asked = Asked(
        config.task.name,
        Asking(engine.answers, wanted.top_k, wanted.beams, config.task.count_first_token_twice),
        layer=wanted.layer,
    )
    return evaluate_on(engine, data, wanted.splits, wanted.seed, asked)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be measured, and how."""

    task: TaskName
    asking: Asking  # of questions; its `k` is also how many candidates matching re-ranks
    layer: int | None = None  # of the maps of grounding
    blind_alone: bool = False
    results: Path | None = None  # where the answers to questions are written to


def evaluate_on(
    engine: Engine, data: DataConfig, splits: Sequence[str], seed: int, asked: Asked
) -> dict[str, float]:
    """A task's figures on splits of pictograms, or (as "data") on the user's own file or folder."""
    if HEAD[asked.task] not in engine.model.heads:
        raise UserError(
            f"This model was trained for {engine.trained_for}, not for {asked.task}: "
            f"leave --task out, or choose a model with that head."
        )
    metrics: dict[str, float] = {}
    if data.source == "pictograms" and asked.task in OF_PAIRS:
        found = evaluate_pictograms(engine, splits, seed, data.count, data.num_nouns, asked.asking.k)
        return controls(found) if asked.blind_alone else dict(found)
    drawn = is_drawn(data.source)
    for name in splits if drawn else ["data"]:
        source = open_source(data, name if drawn else "test", seed, engine.config.image_size, asked.task)
        if distributed.rank() == 0:
            for note in source.notes:
                print(note, file=sys.stderr)
        if data.answer_list and asked.task == "vqa":
            check_answers(Path(data.answer_list), asked.asking.answers, source)
        metrics |= evaluate_task(engine, source, name, asked)
    return metrics


def controls(metrics: Iterable[Metric]) -> dict[str, float]:
    """The figures of the blind control alone."""
    return {name: value for name, value in metrics if "/blind/" in name}


def evaluate_task(engine: Engine, source: Source, name: str, asked: Asked) -> dict[str, float]:
    """The task's figures on a source, and under "blind" what is left of them when every picture is another one's."""
    if asked.task in OF_PAIRS:
        found = evaluate_pairs(engine, source, asked.asking.k, name)  # with the blind control
        return controls(found) if asked.blind_alone else dict(found)
    metrics: dict[str, float] = {}
    controlled = asked.blind_alone or another(source, 0, source.record(0, 0)) is not None
    for shuffled in [False] * (not asked.blind_alone) + [True] * controlled:
        prefix = f"{name}/blind" if shuffled else name
        if asked.task == "vqa":
            results = None if shuffled else asked.results
            metrics |= evaluate_vqa(engine, source, asked.asking, prefix, shuffled, results)
        elif asked.task == "entailment":
            metrics |= evaluate_entailment(engine, source, prefix, shuffled)
        elif asked.task == "nlvr":
            metrics |= evaluate_nlvr(engine, source, prefix, shuffled)
        elif asked.task == "grounding":
            metrics |= evaluate_grounding(engine, source, prefix, asked.layer, shuffled)
    return metrics  # empty for text assignment, which prepares for NLVR2 and is measured there


OF_PAIRS = ("pretrain", "retrieval")  # evaluated by recall
# What a model must have to be asked.
HEAD: dict[TaskName, str] = {
    "pretrain": "contrast",
    "retrieval": "contrast",
    "grounding": "itm",
    "vqa": "answer",
    "entailment": "entailment",
    "text_assignment": "text_assignment",
    "nlvr": "nlvr",
}


def task_of(engine: Engine) -> TaskName:
    """The task that a model was trained for, by its heads where it does not say."""
    if engine.trained is not None:
        return engine.trained.task
    by_head: dict[str, TaskName] = {"answer": "vqa", "entailment": "entailment", "nlvr": "nlvr"}
    return next((task for head, task in by_head.items() if head in engine.model.heads), "retrieval")


def protocol_of(engine: Engine, task: TaskName, data: str) -> Protocol | None:
    """The protocol that the figures of retrieval belong to; None for other tasks."""
    return protocol(engine.trained, data) if task in OF_PAIRS else None


def facts_of(found: Protocol | None) -> dict[str, str]:
    """What `metrics.json` says of the protocol."""
    return {"protocol": found.name, "protocol_in_words": found.sentence} if found else {}


def answers_of(config: Config) -> list[str]:
    """The answers that a model for questions ranks: the recipe's list, or the frequent ones of the training data."""
    if config.task.name != "vqa":
        return []
    source = open_source(config.data, "train", config.train.seed, config.model.image_size, "vqa")
    if not config.data.answer_list:
        return frequent_answers(source)
    file = Path(config.data.answer_list).expanduser()
    answers = read_answers(file)
    check_answers(file, answers, source)
    return answers


def config_of(folder: Path) -> Config | None:
    """The configuration of a run, or of the run whose model a folder is; None for other models."""
    for candidate in (folder, folder.parent):
        with contextlib.suppress(UserError):
            return load_recipe(candidate / CONFIG_FILE)
    return None


def data_to_measure(trained: Config | None, task: TaskName) -> DataConfig:
    """What a model is measured on where nothing is named: the validation data of its run, else pictograms.

    Raises `UserError` for a run on other data than pictograms that has no validation data.
    """
    if trained is None or is_drawn(trained.data.source):
        return DataConfig("pictograms" if task in OF_PAIRS else f"pictograms:{task}")
    if not trained.data.validation:
        raise UserError(
            f"This run was trained on {trained.data.source} and has no data.validation: name with --data what it is "
            f"to be measured on."
        )
    return dataclasses.replace(trained.data, source=trained.data.validation)


def model_card(config: Config) -> str:
    """What a stranger should know of the model."""
    data, train_config = config.data, config.train
    trained_on = (
        f"{data.num_nouns} nouns of the embedded pictograms (generated scenes, caption noise {data.caption_noise})"
        if data.source == "pictograms"
        else data.source
    )
    return f"""---
library_name: albef
license: apache-2.0
---
# An ALBEF model ({config.model.size})

Trained with `albef` on {trained_on}: {train_config.steps} steps of {train_config.batch_size} pairs,
seed {train_config.seed}, pictures of {config.model.image_size} pixels.

```python
from albef import Engine
engine = Engine.load("path/to/this/folder")
engine.match(["picture.jpg"], ["two foxes"])
```

Method: Li et al., "Align before Fuse: Vision and Language Representation Learning with Momentum Distillation",
NeurIPS 2021. Nobody has examined this model for bias or for use beyond the data it was trained on.
"""
