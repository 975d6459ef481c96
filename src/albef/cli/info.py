"""Facts about a model, without running it."""

from __future__ import annotations

import torch

from albef.config import SIZES, Config, ModelConfig, TaskConfig, TaskName
from albef.model import checkpoints
from albef.model_directory import CONFIG_FILE, find_model, read_config
from albef.momentum import FeatureQueue
from albef.systems import SYSTEMS, build_task
from albef.tasks.base import Task
from albef.tasks.retrieval import Retrieval

# What tells how large the input of a model is, and what becomes of it.
OF_PIXELS = ("image_size", "patch_size", "feature_width")
OF_REGIONS = ("region_width", "num_objects", "num_answers")


def model_facts(name: str) -> dict[str, int | str]:
    """Heads, number of parameters, number of published state-dict keys, and sizes of a model directory.

    `name` may also be a size, such as "base". Then the state dict is that of pre-training, with teacher and queue.
    """
    if name in SIZES and "pretrain" in SYSTEMS[SIZES[name].system].tasks:
        task = build_on_meta(SIZES[name])
        model, state = task.student, published_state(task)
    elif name in SIZES:
        config = SIZES[name]
        with torch.device("meta"):
            model = SYSTEMS[config.system].model(config, SYSTEMS[config.system].heads)
        state = SYSTEMS[config.system].published(model.state_dict(), config)
    else:
        config, heads = read_config(find_model(name)[0] / CONFIG_FILE)
        with torch.device("meta"):
            model = SYSTEMS[config.system].model(config, heads)
        state = SYSTEMS[config.system].published(model.state_dict(), config)
    seen = OF_REGIONS if model.config.sees_regions else OF_PIXELS
    return {
        "system": model.config.system,
        "size": model.config.size,
        "heads": ", ".join(model.heads),
        "trainable_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "state_dict_keys": len(state),
        "vocabulary": model.config.vocab_size,
        **{name: getattr(model.config, name) for name in seen},
        "max_tokens": model.config.max_tokens,
    }


def build_on_meta(config: ModelConfig, task: TaskName = "pretrain") -> Task:
    """A task whose weights take no memory."""
    with torch.device("meta"):
        return build_task(Config(model=config, task=TaskConfig(name=task)))


def published_state(task: Task) -> dict[str, torch.Tensor]:
    """The state dict of a task under the published names: student, teacher and queues."""
    config = task.student.config
    state = SYSTEMS[config.system].published(task.student.state_dict(), config)
    if task.teacher is not None:
        state |= checkpoints.published_teacher(
            checkpoints.to_published(task.teacher.module.state_dict(), config)
        )
    queue = getattr(task, "queue", None)
    if isinstance(queue, FeatureQueue):
        state |= checkpoints.published_queue(queue.state_dict(), with_image_id=isinstance(task, Retrieval))
    return state
