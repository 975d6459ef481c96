"""Starts the encoders from a pre-trained ViT and BERT in local files (paper §3.1)."""

from __future__ import annotations

import json
import os
from pathlib import Path

from torch import Tensor

from albef.config import ModelConfig, TrainConfig, UserError
from albef.manifest import plain
from albef.model.unimodal import Encoder, image_encoder_weights, text_encoder_weights
from albef.tasks.base import Task
from albef.train.initial import Started, give
from albef.train.weights_file import find_weights, read_weights


def start_from_encoders(task: Task, train: TrainConfig) -> Started:
    """Loads the weights of `init_image` and `init_text` into the student, and copies them to the teacher.

    All other weights stay random, as published, also those of cross-attention. Raises `UserError` for weights that do
    not fit the model.
    """
    found = initial_encoders(train, task.student.config)
    started = give(task, task.adapt(found.weights))
    return Started(started.loaded, found.ignored, started.random)


def initial_encoders(train: TrainConfig, model: ModelConfig) -> Encoder:
    """The weights of `init_image` and `init_text` under our names.

    Raises `UserError` for files without weights, and for weights that do not fit, with the settings that would fit.
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
        check_heads(Path(os.path.expanduser(source)), encoder, heads)
        state = read_weights(file)
        try:
            found = translate(state, model, layers)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        except Exception as error:  # familiar names, but tensors of any shape
            what = "ViT" if encoder == "image" else "BERT"
            raise UserError(
                f"{file}: its tensors do not have the shapes of a {what} ({plain(error)}). Take other weights."
            ) from None
        weights |= found.weights
        ignored += found.ignored
    return Encoder(weights, ignored)


def check_heads(folder: Path, encoder: str, heads: int) -> None:
    """Raises `UserError` if the folder's config.json has another number of heads. Shapes do not show it."""
    file = folder / "config.json"
    if not file.is_file():
        return
    try:
        facts = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise UserError(f"{file}: cannot be read as JSON ({error}). Download it again.") from None
    told = facts.get("num_attention_heads", heads) if isinstance(facts, dict) else heads
    if told != heads:
        raise UserError(
            f"{file}: these weights have {told} attention heads, but the recipe has {heads}. "
            f"Set model.{encoder}_heads to {told}."
        )
