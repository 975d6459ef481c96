"""Encoders that start from weights of one modality: a ViT and a BERT in local files (paper §3.1)."""

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
    """Gives the student the weights of `init_image` and `init_text`, then the teacher the student's.

    All else stays random, cross-attention too, as published. Raises `UserError` for weights that don't
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
        check_heads(Path(os.path.expanduser(source)), encoder, heads)
        state = read_weights(file)
        try:
            found = translate(state, model, layers)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        except Exception as error:  # names of an encoder over tensors of any shape
            what = "ViT" if encoder == "image" else "BERT"
            raise UserError(
                f"{file}: its tensors have not the shapes of a {what}'s ({plain(error)}); take other weights."
            ) from None
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
