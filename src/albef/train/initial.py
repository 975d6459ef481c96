"""Weights to start from: those of a model directory or run, as far as the task has a place for them."""

from __future__ import annotations

from typing import NamedTuple

from safetensors.torch import load_file

from albef.config import UserError
from albef.model.image_encoder import resize_positions
from albef.model_directory import WEIGHTS_FILE, find_model
from albef.tasks.base import Task

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
    fitting = {name: tensor.float() for name, tensor in state.items() if name in own}
    if not fitting:
        raise UserError(f"{file}: nothing in it fits a model for {type(task).__name__}; take another one.")
    task.student.load_state_dict(fitting, strict=False)
    if task.teacher is not None:
        task.teacher.module.load_state_dict(task.student.state_dict())
    return Started(list(fitting), [n for n in state if n not in own], [n for n in own if n not in fitting])
