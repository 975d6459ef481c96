"""Whether the settings of a run are compatible, and which settings `task.compat: official` stands for."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from albef.errors import UserError

# What `compat: official` sets: the published behaviour wherever our default differs.
OFFICIAL: dict[str, object] = {
    "task.teacher_dropout": True,
    "task.random_queue": True,
    "task.mask_same_pairs": False,
    "task.count_first_token_twice": True,
    "task.gather_batch": False,
    "train.schedule": "published",
    "train.decay_embeddings": True,
    "train.clip_norm": 0.0,
    "data.obey_exif": False,
    "model.transparent": "dropped",
}


# The losses that a task of albef adds up, as far as `task.losses` names them. Other tasks have one loss of their own.
ADDED: dict[str, tuple[str, ...]] = {
    "pretrain": ("itc", "itm", "mlm"),
    "retrieval": ("itc", "itm"),
    "grounding": ("itc", "itm"),
}


def losses_of(task: str, named: Collection[str]) -> tuple[str, ...]:
    """The losses that a task adds up, of those that `task.losses` names. Empty for a task with a loss of its own."""
    return tuple(loss for loss in ADDED.get(task, ()) if loss in named)


def check_agreement(config: Any) -> None:
    """Raises `UserError` for settings of a `Config` that contradict each other."""
    model, data, task, layer = config.model, config.data, config.task, config.evaluate.layer
    losses = losses_of(task.name, task.losses)
    if task.name in ADDED and not losses:
        raise UserError(
            f"task.losses is {', '.join(task.losses)}, but {task.name} has other losses: name at least one of "
            f"{', '.join(ADDED[task.name])}."
        )
    if model.system == "albef" and model.fusion_depth == 0 and losses != ("itc",):
        raise UserError(
            "model.fusion_depth is 0, which only works with the loss itc alone: set it to at least 1."
        )
    if model.sees_regions and model.fusion_depth == 0:
        raise UserError(
            f"model.fusion_depth is 0, but in a model of system {model.system} text and regions meet in these layers: "
            f"set it to at least 1."
        )
    if layer is not None and layer >= model.fusion_depth:
        raise UserError(
            f"evaluate.layer is {layer}, but model.fusion_depth is {model.fusion_depth} and layers count from 0: "
            f"choose a lower layer, or leave it out."
        )
    if task.align_first and losses and "itc" not in losses:
        raise UserError(
            f"task.align_first is {task.align_first}, so training starts with the loss itc alone, but task.losses "
            f"lacks it: add itc there, or set task.align_first to 0."
        )
    masks_nothing = not data.mlm_probability and not data.mlm_content_only
    if "mlm" in losses and masks_nothing:
        raise UserError("data.mlm_probability is 0, so no token is masked: remove mlm from task.losses.")
    if task.name == "grounding" and "itm" not in losses:
        raise UserError("task.losses lacks itm, which grounding takes its maps from: add it.")
    check_training(config.train)
    if task.compat and (key := deviating(config)):
        raise UserError(
            f"task.compat is official, but {key} is {setting(config, key)}: in Python call official(config), which "
            f"sets all of its settings, or leave task.compat empty."
        )


def check_training(train: Any) -> None:
    """Raises `UserError` for settings of a `TrainConfig` that contradict each other."""
    if train.init and (train.init_image or train.init_text):
        raise UserError(
            "train.init already gives all encoders their weights: leave it out, or leave out train.init_image and "
            "train.init_text."
        )
    if train.compile and train.shard:
        raise UserError(
            "train.compile makes one graph of a step, and train.shard splits it between layers: turn one of them off."
        )
    for name in ("init_image", "init_text"):
        if getattr(train, f"{name}_layers") and not getattr(train, name):
            raise UserError(
                f"train.{name}_layers chooses layers of train.{name}, which is not set: set it too."
            )
    if train.linear == "onednn" and train.precision == "bf16":
        raise UserError(
            "train.linear is onednn, which computes in fp32 only: set train.precision to fp32 or auto."
        )


def deviating(config: Any) -> str:
    """The first setting of a `Config` that is not as published, as `section.name`; empty if all are."""
    return next((key for key, value in OFFICIAL.items() if setting(config, key) != value), "")


def setting(config: Any, key: str) -> object:
    """The value of `section.name`."""
    section, name = key.split(".")
    return getattr(getattr(config, section), name)
