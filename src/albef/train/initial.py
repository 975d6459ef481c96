"""Starts a task from the weights of a model directory or run, as far as the task uses them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from albef.config import ModelConfig, UserError
from albef.manifest import MANIFEST_FILE, verify
from albef.model_directory import (
    ANSWERS_FILE,
    CONFIG_FILE,
    QUEUE_FILE,
    TEACHER_FILE,
    WEIGHTS_FILE,
    find_model,
    read_answers,
    read_config,
    read_tensors,
)
from albef.momentum import NOBODY, FeatureQueue, Keys
from albef.tasks.base import Task
from albef.train.initial_answers import with_answers

# What every task needs. Heads such as ITM may start at random, as they do when a task is trained for the first time.
FOUNDATIONS = ("image_encoder", "text_encoder", "fusion_encoder", "image_projection", "text_projection")


class Started(NamedTuple):
    """What happened to the weights, by name."""

    loaded: list[str]
    ignored: list[str]  # the task does not use them
    random: list[str]  # not in the model, so at their initial values


def start_from(task: Task, source: str, answers: Sequence[str] = ()) -> Started:
    """Loads a model's weights into the student, and copies them to the teacher (docs/published.md, Q16).

    `answers` are those that the task scores. An answer that the model scored too keeps its row.

    If a teacher and a queue are stored with the model and the task has them, they continue. Position embeddings are
    resized to the task's images. Raises `UserError` for weights of other sizes, and for a model without parts that the
    task needs. Raises `Damaged` if a file does not match the manifest.
    """
    folder = find_model(source)[0]
    if (folder / MANIFEST_FILE).is_file():  # teacher and queue may be deleted on purpose
        verify(
            folder, [name for name in (WEIGHTS_FILE, TEACHER_FILE, QUEUE_FILE) if (folder / name).is_file()]
        )
    file, own = folder / WEIGHTS_FILE, task.student.state_dict()
    state = with_places(task, read_tensors(file))
    known = read_answers(folder / ANSWERS_FILE) if (folder / ANSWERS_FILE).is_file() else []
    state = with_answers(state, own, known, answers)
    refuse_others(task, folder, {name: tensor for name, tensor in state.items() if name in own})
    started = give(task, state)
    if task.teacher is not None and (folder / TEACHER_FILE).is_file():
        kept = {n: t.float() for n, t in with_places(task, read_tensors(folder / TEACHER_FILE)).items()}
        loaded = {name: kept[name] for name in started.loaded if name in kept}
        task.teacher.module.load_state_dict(loaded, strict=False)
        # The published teacher moves before each step, ours after it. This is the move before the first step.
        task.teacher.update(task.student)
    queue = getattr(task, "queue", None)
    if isinstance(queue, FeatureQueue) and (folder / QUEUE_FILE).is_file():
        refill(queue, read_tensors(folder / QUEUE_FILE))
    return started


def give(task: Task, state: Mapping[str, Tensor]) -> Started:
    """Loads the weights that the student uses, and copies them to the teacher (docs/published.md, Q16)."""
    own = task.student.state_dict()
    fitting = {name: tensor.float() for name, tensor in state.items() if name in own}
    task.student.load_state_dict(fitting, strict=False)
    if task.teacher is not None:
        task.teacher.module.load_state_dict(task.student.state_dict())
    return Started(list(fitting), [n for n in state if n not in own], [n for n in own if n not in fitting])


def with_places(task: Task, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's weights under the names of this task, with positions resized to its images."""
    return task.student.resized(task.adapt(weights))


def refuse_others(task: Task, folder: Path, fitting: Mapping[str, Tensor]) -> None:
    """Raises `UserError` unless the weights have the student's shapes and all parts that it needs."""
    own, file = task.student.state_dict(), folder / WEIGHTS_FILE
    wrong = [
        f"{name} is {list(tensor.shape)} instead of {list(own[name].shape)}"
        for name, tensor in fitting.items()
        if tensor.shape != own[name].shape
    ]
    config, heads = read_config(folder / CONFIG_FILE)
    if wrong:
        raise UserError(
            f"{file}: its shapes do not fit this recipe ({'; '.join(wrong[:3])}). "
            f"These settings would fit: {' '.join(settings_of(config, task.student.config))}."
        )
    lacking = [name for name in own if name.startswith(FOUNDATIONS) and name not in fitting]
    if lacking:
        raise UserError(
            f"{folder}: this model (for {', '.join(heads)}) lacks {lacking[0]} and {len(lacking) - 1} more tensors that "
            f"{type(task).__name__} needs. Start from the pre-trained model that it was made from."
        )


def settings_of(config: ModelConfig, recipe: ModelConfig) -> list[str]:
    """The options that set the recipe's sizes to the model's, where they differ."""
    names = [
        "patch_size",
        *(f"{part}_{what}" for part in ("image", "text") for what in ("width", "depth", "mlp_width")),
        "fusion_depth",
        "feature_width",
        "region_width",
        "num_objects",
        "num_attributes",
        "vocab_size",
        "max_positions",
    ]
    return [
        f"--model.{name}={getattr(config, name)}"
        for name in names
        if getattr(config, name) != getattr(recipe, name)
    ]


def refill(queue: FeatureQueue, stored: Mapping[str, Tensor]) -> None:
    """Pushes the features of a stored queue, oldest first, so that a smaller queue keeps the newest ones.

    Their ids are dropped, since in this run the same ids belong to other images.
    """
    order = (torch.arange(len(stored["image"])) + stored["pointer"]) % max(len(stored["image"]), 1)
    nobody = torch.full(order.shape, NOBODY)
    queue.push(Keys(stored["image"][order], stored["text"][order], nobody, nobody))
