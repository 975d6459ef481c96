"""Weights to start from: those of a model directory or run, or of encoders of one modality, as far as they fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import load_file
from torch import Tensor

from albef.config import ModelConfig, TrainConfig, UserError
from albef.engine import WEIGHTS_FILE, find_model
from albef.model.image_encoder import resize_positions
from albef.model.unimodal import Encoder, image_encoder_weights, text_encoder_weights
from albef.tasks.base import Task
from albef.train.weights_file import find_weights, read_weights

POSITIONS = "image_encoder.positions"


class Started(NamedTuple):
    """What became of the weights, by name."""

    loaded: list[str]
    ignored: list[str]  # the task has no place for them
    random: list[str]  # initial weights, since the model has none


def start_from(task: Task, source: str) -> Started:
    """Gives the student the weights of a model, then the teacher the student's (spec Q16).

    Position embeddings are resized to the task's pictures. Raises `UserError` for weights of other sizes.
    """
    file = find_model(source)[0] / WEIGHTS_FILE
    state, own = task.adapt(load_file(file)), task.student.state_dict()
    if POSITIONS in state:
        state[POSITIONS] = resize_positions(state[POSITIONS].float(), task.student.config.grid)
    last = "classifier.out.weight"
    if last in state and last in own and len(state[last]) != len(own[last]):
        # Other classes: the classifier of another task.
        state = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    wrong = [
        f"{name} is {list(state[name].shape)} instead of {list(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if wrong:
        raise UserError(
            f"{file}: its shapes don't fit this recipe's ({'; '.join(wrong[:3])}); give the section `model` the "
            f"widths, depths and vocabulary of that model's config.json."
        )
    if not any(name in own for name in state):
        raise UserError(f"{file}: nothing in it fits a model for {type(task).__name__}; take another one.")
    return give(task, state)


def start_from_encoders(task: Task, train: TrainConfig) -> Started:
    """Gives the student the weights of `init_image` and `init_text`, then the teacher the student's.

    All else stays random, cross-attention too, as published (spec §1.1). Raises `UserError` for weights that don't
    fit the task's model.
    """
    found = initial_encoders(train, task.student.config)
    started = give(task, task.adapt(found.weights))
    return Started(started.loaded, found.ignored, started.random)


def initial_encoders(train: TrainConfig, model: ModelConfig) -> Encoder:
    """The weights that `init_image` and `init_text` have for a model.

    Raises `UserError` for files that are no weights and for weights that don't fit, with the settings that would make
    them fit.
    """
    weights: dict[str, Tensor] = {}
    ignored: list[str] = []
    for source, translate, layers, encoder, heads in (
        (train.init_image, image_encoder_weights, train.init_image_layers, "image", model.image_heads),
        (train.init_text, text_encoder_weights, train.init_text_layers, "text", model.text_heads),
    ):
        if not source:
            continue
        file = find_weights(source, f"train.init_{encoder}")
        check_heads(Path(source).expanduser(), encoder, heads)
        state = read_weights(file)
        try:
            found = translate(state, model, layers)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        weights |= found.weights
        ignored += found.ignored
    return Encoder(weights, ignored)


def check_heads(folder: Path, encoder: str, heads: int) -> None:
    """Raises `UserError` where the config.json of a folder tells of other heads, since no shape does."""
    file = folder / "config.json"
    if not file.is_file():
        return
    try:
        facts = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: not readable as JSON ({error}); get it again.") from None
    told = facts.get("num_attention_heads", heads) if isinstance(facts, dict) else heads
    if told != heads:
        raise UserError(
            f"{file}: these weights have {told} attention heads and the recipe {heads}: "
            f"set model.{encoder}_heads to {told}."
        )


def give(task: Task, state: Mapping[str, Tensor]) -> Started:
    """Loads what the student has a place for, and gives the teacher the student's weights (spec Q16)."""
    own = task.student.state_dict()
    fitting = {name: tensor.float() for name, tensor in state.items() if name in own}
    task.student.load_state_dict(fitting, strict=False)
    if task.teacher is not None:
        task.teacher.module.load_state_dict(task.student.state_dict())
    return Started(list(fitting), [n for n in state if n not in own], [n for n in own if n not in fitting])
