"""A whole run: prepare its folder, train, export the model, evaluate, report."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from rich.console import Console

from albef.config import Config, DataConfig, ModelConfig, TaskName, UserError
from albef.data.sources import Source, open_source
from albef.data.text import Tokenizer, clean_caption
from albef.engine import Engine
from albef.evaluation.classes import evaluate_entailment, evaluate_nlvr
from albef.evaluation.evaluate import (
    evaluate_pairs,
    evaluate_pictograms,
    metrics_table,
    task_table,
    write_metrics,
)
from albef.evaluation.grounding import evaluate_grounding
from albef.evaluation.vqa import check_answers, evaluate_vqa, frequent_answers
from albef.manifest import write_whole
from albef.model.albef import ALBEF
from albef.model_directory import CONFIG_FILE as MODEL_FILE
from albef.model_directory import find_model, read_answers, read_config, save_model
from albef.recipe import dump_config, load_recipe
from albef.report.report import write_report
from albef.train.checkpoint import checkpoints_in, load_task
from albef.train.loop import TOKENIZER_FILE, train
from albef.train.resume import CONFIG_FILE, check_same_run

VOCABULARY_CAPTIONS = 5000


def run(config: Config, folder: Path, allow_changes: bool = False) -> None:
    """Trains a configuration in a run folder, going on where an earlier attempt stopped, then evaluates and reports.

    Raises `UserError` if the folder holds a run of another configuration, unless `allow_changes`.
    """
    console = Console()
    config = prepare(config, folder, allow_changes)
    answers = answers_of(config)  # before hours of training: the list may be wrong
    train(config, folder)
    console.print(f"Trained. Exporting the model to {folder / 'model'} and evaluating it …")
    task, facts = load_task(checkpoints_in(folder / "checkpoints")[-1], config)
    tokenizer = Tokenizer.load(folder / TOKENIZER_FILE)
    save_model(folder / "model", task.student, tokenizer, model_card(config), answers)
    engine = Engine.load(folder / "model")
    metrics = evaluate(engine, config)
    seconds, steps = float(facts["seconds"]), config.train.steps
    metrics |= {
        "train/seconds": seconds,
        "train/pairs_per_second": steps * config.train.batch_size / max(seconds, 1e-9),
        "train/steps": steps,
        "train/skipped_steps": int(facts["skipped"]),
    }
    write_metrics(folder / "metrics.json", metrics)
    if config.task.name not in ("pretrain", "retrieval"):
        console.print(task_table(metrics))
        return
    console.print(metrics_table(metrics))
    if config.task.name == "pretrain":
        assert task.teacher is not None
        teacher = task.teacher.module
        assert isinstance(teacher, ALBEF)
        report = write_report(folder, engine, teacher, config)
        console.print(f"Report: {report}")


def prepare(config: Config, folder: Path, allow_changes: bool = False) -> Config:
    """The configuration with its final vocabulary, written into a run folder that is new or holds this very run."""
    tokenizer_file, config_file = folder / TOKENIZER_FILE, folder / CONFIG_FILE
    if config.train.init:
        config = dataclasses.replace(config, model=initial_model(config))
    if tokenizer_file.exists():
        tokenizer = Tokenizer.load(tokenizer_file)
    else:
        tokenizer = choose_tokenizer(config)
    if not config.train.init:  # else the weights say how many word embeddings there are
        model = dataclasses.replace(config.model, vocab_size=tokenizer.vocab_size)
        config = dataclasses.replace(config, model=model)
    if config_file.exists():
        check_same_run(folder, config, allow_changes)
    elif folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise UserError(f"{folder} is not empty and holds no run: choose another folder with --out.")
    folder.mkdir(parents=True, exist_ok=True)
    # The configuration first: a process that is killed here leaves a folder that is known as a run.
    write_whole(config_file, dump_config(config))
    if not tokenizer_file.exists():
        tokenizer.save(tokenizer_file)
    return config


def initial_model(config: Config) -> ModelConfig:
    """The model that training starts from, with this recipe's picture size, text length and dropout."""
    start, own = read_config(find_model(config.train.init)[0] / MODEL_FILE)[0], config.model
    return dataclasses.replace(
        start,
        image_size=own.image_size,
        max_tokens=own.max_tokens,
        max_words=own.max_words,
        dropout=own.dropout,
    )


def choose_tokenizer(config: Config) -> Tokenizer:
    """That of the model to start from, else BERT's vocabulary or one of the data's first captions and answers."""
    if config.train.init:
        return Tokenizer.load(find_model(config.train.init)[0] / TOKENIZER_FILE)
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
    if data.source == "pictograms" and config.task.name != "text_assignment":
        return dict(
            evaluate_pictograms(
                engine, wanted.splits, wanted.seed, wanted.count, data.num_nouns, wanted.top_k
            )
        )
    if not data.source.startswith("pictograms"):
        if not data.validation:
            return {}
        data = dataclasses.replace(data, source=data.validation)
    asked = Asked(config.task.name, wanted.top_k, count_first_token_twice=config.task.count_first_token_twice)
    return evaluate_on(engine, data, wanted.splits, wanted.seed, asked)


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is to be measured, and how."""

    task: TaskName
    top_k: int
    count_first_token_twice: bool = False
    layer: int | None = None  # of the maps of grounding
    blind_alone: bool = False
    results: Path | None = None  # where the answers to questions are written to


def evaluate_on(
    engine: Engine, data: DataConfig, splits: Sequence[str], seed: int, asked: Asked
) -> dict[str, float]:
    """A task's figures on splits of pictograms, or (as "data") on the user's own file or folder."""
    metrics: dict[str, float] = {}
    drawn = data.source.startswith("pictograms")
    for name in splits if drawn else ["data"]:
        source = open_source(data, name if drawn else "test", seed, engine.config.image_size, asked.task)
        metrics |= evaluate_task(engine, source, name, asked)
    return metrics


def evaluate_task(engine: Engine, source: Source, name: str, asked: Asked) -> dict[str, float]:
    """The task's figures on a source, and under "blind" what is left of them when every picture is another one's."""
    if asked.task in ("pretrain", "retrieval"):
        return dict(evaluate_pairs(engine, source, asked.top_k, name))
    metrics: dict[str, float] = {}
    for shuffled in (True,) if asked.blind_alone else (False, True):
        prefix = f"{name}/blind" if shuffled else name
        if asked.task == "vqa":
            metrics |= evaluate_vqa(
                engine,
                source,
                engine.answers,
                asked.top_k,
                prefix,
                shuffled,
                asked.count_first_token_twice,
                None if shuffled else asked.results,
            )
        elif asked.task == "entailment":
            metrics |= evaluate_entailment(engine, source, prefix, shuffled)
        elif asked.task == "nlvr":
            metrics |= evaluate_nlvr(engine, source, prefix, shuffled)
        elif asked.task == "grounding":
            metrics |= evaluate_grounding(engine, source, prefix, asked.layer, shuffled)
    return metrics  # empty for text assignment, which prepares for NLVR2 and is measured there


def task_of(engine: Engine) -> TaskName:
    """The task that a model answers, by its heads."""
    by_head: dict[str, TaskName] = {"answer": "vqa", "entailment": "entailment", "nlvr": "nlvr"}
    return next((task for head, task in by_head.items() if head in engine.model.heads), "retrieval")


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


def trained_nouns(folder: Path) -> int | None:
    """How many nouns of the pictograms a run was trained with; None if the folder is no run."""
    for candidate in (folder, folder.parent):
        with contextlib.suppress(UserError):
            return load_recipe(candidate / CONFIG_FILE).data.num_nouns
    return None


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
engine.match(["picture.jpg"], ["two foxes above a red car"])
```

Method: Li et al., "Align before Fuse: Vision and Language Representation Learning with Momentum Distillation",
NeurIPS 2021. Nobody has examined this model for bias or for use beyond the data it was trained on.
"""
