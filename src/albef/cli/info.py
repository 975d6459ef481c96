"""What there is to know about a model without running it."""

from __future__ import annotations

import torch

from albef.config import SIZES, Config, ModelConfig, TaskConfig, TaskName
from albef.model import checkpoints
from albef.model_directory import find_model, read_config
from albef.momentum import FeatureQueue
from albef.tasks.base import Task
from albef.tasks.build import build_task
from albef.tasks.retrieval import Retrieval


def model_facts(name: str) -> dict[str, int | str]:
    """Parameters, state-dict keys under the published names, vocabulary and image size of a size or model directory."""
    config = SIZES[name] if name in SIZES else read_config(find_model(name)[0] / "config.json")[0]
    task = build_on_meta(config)
    return {
        "size": config.size,
        "trainable_parameters": sum(parameter.numel() for parameter in task.student.parameters()),
        "state_dict_keys": len(published_state(task)),
        "vocabulary": config.vocab_size,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "feature_width": config.feature_width,
        "max_tokens": config.max_tokens,
    }


def build_on_meta(config: ModelConfig, task: TaskName = "pretrain") -> Task:
    """A whole task without memory for its weights."""
    with torch.device("meta"):
        return build_task(Config(model=config, task=TaskConfig(name=task)))


def published_state(task: Task) -> dict[str, torch.Tensor]:
    """The published state dict of a task: student, teacher and queues."""
    config = task.student.config
    state = checkpoints.to_published(task.student.state_dict(), config)
    if task.teacher is not None:
        state |= checkpoints.published_teacher(
            checkpoints.to_published(task.teacher.module.state_dict(), config)
        )
    queue = getattr(task, "queue", None)
    if isinstance(queue, FeatureQueue):
        state |= checkpoints.published_queue(queue.state_dict(), with_image_id=isinstance(task, Retrieval))
    return state
