"""Weights to start from: those of a model directory or run, as far as the task has a place for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from albef.config import ModelConfig, UserError
from albef.manifest import MANIFEST_FILE, verify
from albef.model.image_encoder import resize_positions
from albef.model_directory import (
    CONFIG_FILE,
    QUEUE_FILE,
    TEACHER_FILE,
    WEIGHTS_FILE,
    find_model,
    read_config,
    read_tensors,
)
from albef.momentum import NOBODY, FeatureQueue, Keys
from albef.tasks.base import Task

POSITIONS = "image_encoder.positions"
# What every task builds upon. Matching and other heads may be new, and are when a task is learnt for the first time.
FOUNDATIONS = ("image_encoder", "text_encoder", "fusion_encoder", "image_projection", "text_projection")


class Started(NamedTuple):
    """What became of the weights, by name."""

    loaded: list[str]
    ignored: list[str]  # the task has no place for them
    random: list[str]  # initial weights, since the model has none


def start_from(task: Task, source: str) -> Started:
    """Gives the student the weights of a model, then the teacher the student's (docs/published.md, Q16).

    A teacher and a queue stored beside the model go on, where the task has them. Position embeddings are resized to
    the task's pictures. Raises `UserError` for weights of other sizes and for a model that lacks what this task
    builds upon, and `Damaged` when a file is not that of the manifest, where there is one.
    """
    folder = find_model(source)[0]
    if (folder / MANIFEST_FILE).is_file():  # teacher and queue may have been deleted, to start without
        verify(
            folder, [name for name in (WEIGHTS_FILE, TEACHER_FILE, QUEUE_FILE) if (folder / name).is_file()]
        )
    file, own = folder / WEIGHTS_FILE, task.student.state_dict()
    state = with_places(task, read_tensors(file))
    last = "classifier.out.weight"
    if last in state and last in own and len(state[last]) != len(own[last]):
        # Other classes: the classifier of another task.
        state = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    refuse_others(task, folder, {name: tensor for name, tensor in state.items() if name in own})
    started = give(task, state)
    if task.teacher is not None and (folder / TEACHER_FILE).is_file():
        kept = {n: t.float() for n, t in with_places(task, read_tensors(folder / TEACHER_FILE)).items()}
        loaded = {name: kept[name] for name in started.loaded if name in kept}
        task.teacher.module.load_state_dict(loaded, strict=False)
        # The published teacher moves before each step, ours after it: here is the one before the first.
        task.teacher.update(task.student)
    queue = getattr(task, "queue", None)
    if isinstance(queue, FeatureQueue) and (folder / QUEUE_FILE).is_file():
        refill(queue, read_tensors(folder / QUEUE_FILE))
    return started


def give(task: Task, state: Mapping[str, Tensor]) -> Started:
    """Loads what the student has a place for, and gives the teacher the student's weights (docs/published.md, Q16)."""
    own = task.student.state_dict()
    fitting = {name: tensor.float() for name, tensor in state.items() if name in own}
    task.student.load_state_dict(fitting, strict=False)
    if task.teacher is not None:
        task.teacher.module.load_state_dict(task.student.state_dict())
    return Started(list(fitting), [n for n in state if n not in own], [n for n in own if n not in fitting])


def with_places(task: Task, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A model's weights under the names of this task, positions for its pictures."""
    state = task.adapt(weights)
    if POSITIONS in state:
        state[POSITIONS] = resize_positions(state[POSITIONS].float(), task.student.config.grid)
    return state


def refuse_others(task: Task, folder: Path, fitting: Mapping[str, Tensor]) -> None:
    """Raises `UserError` unless the weights have the student's shapes and all that it builds upon."""
    own, file = task.student.state_dict(), folder / WEIGHTS_FILE
    wrong = [
        f"{name} is {list(tensor.shape)} instead of {list(own[name].shape)}"
        for name, tensor in fitting.items()
        if tensor.shape != own[name].shape
    ]
    config, heads = read_config(folder / CONFIG_FILE)
    if wrong:
        raise UserError(
            f"{file}: its shapes don't fit this recipe's ({'; '.join(wrong[:3])}); "
            f"what would make them fit: {', '.join(settings_of(config, task.student.config))}."
        )
    lacking = [name for name in own if name.startswith(FOUNDATIONS) and name not in fitting]
    if lacking:
        raise UserError(
            f"{folder}: a model for {', '.join(heads)}, which lacks {lacking[0]} and {len(lacking) - 1} more that "
            f"{type(task).__name__} starts from; take the pre-trained model that it came from."
        )


def settings_of(config: ModelConfig, recipe: ModelConfig) -> list[str]:
    """The model's sizes that are other ones than the recipe's, as arguments."""
    names = [
        "patch_size",
        *(f"{part}_{what}" for part in ("image", "text") for what in ("width", "depth", "mlp_width")),
        "fusion_depth",
        "feature_width",
        "vocab_size",
        "max_positions",
    ]
    return [
        f"--model.{name}={getattr(config, name)}"
        for name in names
        if getattr(config, name) != getattr(recipe, name)
    ]


def refill(queue: FeatureQueue, stored: Mapping[str, Tensor]) -> None:
    """Pushes the features of a stored queue, oldest first, so that queues of any size take its newest ones.

    Whose they are is forgotten: the numbers of another run's pictures would name others here.
    """
    order = (torch.arange(len(stored["image"])) + stored["pointer"]) % max(len(stored["image"]), 1)
    nobody = torch.full(order.shape, NOBODY)
    queue.push(Keys(stored["image"][order], stored["text"][order], nobody, nobody))
