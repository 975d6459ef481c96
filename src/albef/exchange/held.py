"""What a run or a model directory holds, memory-mapped, to be written in another form."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from albef.config import ModelConfig
from albef.exchange.opening import mapped
from albef.manifest import MANIFEST_FILE, verify
from albef.model_directory import (
    CONFIG_FILE,
    QUEUE_FILE,
    TEACHER_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    check_weights,
    find_model,
    read_config,
)
from albef.progress import say
from albef.recipe import load_recipe
from albef.systems import SYSTEMS, build_task
from albef.train.checkpoint import TASK_FILE, newest_checkpoint


class Held(NamedTuple):
    """The content of a run or a model directory, under our names. Teacher and queue may be empty."""

    config: ModelConfig
    heads: tuple[str, ...]
    student: dict[str, Tensor]
    teacher: dict[str, Tensor]
    queue: dict[str, Tensor]
    tokenizer: Path


def held_by(source: str) -> Held:
    """What a run's newest checkpoint or a model directory holds."""
    return held_by_run(Path(os.path.expanduser(source))) or held_by_model(source)


def held_by_run(folder: Path) -> Held | None:
    """The newest undamaged checkpoint of a run. None for a folder without checkpoints."""
    recipe = folder / "config.yaml"
    newest = newest_checkpoint(folder / "checkpoints", say) if recipe.is_file() else None
    if newest is None:
        return None
    config = load_recipe(recipe)
    file = newest[0] / TASK_FILE
    tensors = mapped(file)
    with torch.device("meta"):
        task = build_task(config)
    check_weights(file, tensors, task.state_dict())

    def below(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    student, teacher, queue = below("student."), below("teacher.module."), below("queue.")
    return Held(config.model, task.student.heads, student, teacher, queue, folder / TOKENIZER_FILE)


def held_by_model(source: str) -> Held:
    """The content of a model directory."""
    folder, _ = find_model(source)
    if (folder / MANIFEST_FILE).is_file():
        there = [name for name in (WEIGHTS_FILE, TEACHER_FILE, QUEUE_FILE) if (folder / name).is_file()]
        verify(folder, there)
    config, heads = read_config(folder / CONFIG_FILE)
    student, teacher, queue = (
        mapped(folder / file) if file == WEIGHTS_FILE or (folder / file).is_file() else {}
        for file in (WEIGHTS_FILE, TEACHER_FILE, QUEUE_FILE)
    )
    with torch.device("meta"):
        own = SYSTEMS[config.system].model(config, heads).state_dict()
    check_weights(folder / WEIGHTS_FILE, student, own)
    return Held(config, heads, student, teacher, queue, folder / TOKENIZER_FILE)
