"""What there is to know about a model without running it."""

from __future__ import annotations

import torch

from albef.config import SIZES, Config, ModelConfig
from albef.engine import find_model, read_config
from albef.model import checkpoints
from albef.tasks.pretrain import Pretrain


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


def build_on_meta(config: ModelConfig) -> Pretrain:
    """The whole pre-training task without memory for its weights."""
    with torch.device("meta"):
        return Pretrain(Config(model=config))


def published_state(task: Pretrain) -> dict[str, torch.Tensor]:
    """The published state dict of pre-training: student, teacher and queues."""
    config = task.student.config
    state = checkpoints.to_published(task.student, config)
    teacher = checkpoints.to_published(task.teacher.module, config)
    return state | checkpoints.published_teacher(teacher) | checkpoints.published_queue(task.queue)
