"""The optimizer, and all schedules as functions of the step (paper §3.5)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from albef.config import Config, TrainConfig
from albef.tasks.base import Stage
from albef.train.bert_adam import BertAdam
from albef.train.muon import Muon, is_layer_matrix

OPTIMIZERS: dict[str, type[torch.optim.AdamW]] = {
    "adamw": torch.optim.AdamW,
    "muon": Muon,
    "bertadam": BertAdam,
}

# Heads that a pre-trained model does not have, in all systems: of answers from a list, of classes, of two images.
NEW_HEADS = ("classifier.", "answer_head.", "entailment_head.", "pair_head.", "pair_attention.")
DECAYED, NOT_DECAYED, TEMPERATURE, MUON = range(4)  # groups of parameters, in their order


def is_decayed(name: str, parameter: nn.Parameter, decay_embeddings: bool) -> bool:
    """Whether weight decay applies: to matrices. Published: also to embeddings (docs/published.md, Q11)."""
    if parameter.ndim <= 1 or name.endswith(".bias"):
        return False
    embeds = any(part in name for part in ("words", "positions", "types", "class_token"))
    return decay_embeddings or not embeds


def build_optimizer(student: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over the student. Parameters of one group share their weight decay and their learning rate.

    The temperature and heads of answers and classes have learning rates of their own. With `optimizer: muon`, weight
    matrices of layers are another group, with weight decay. With `optimizer: bertadam` everything decays. Groups hold
    the names of their parameters.
    """
    decays_all = config.optimizer == "bertadam"
    # The first number is the order of the groups, in which the oldest checkpoints count parameters.
    alike: dict[tuple[int, float, float], list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in student.named_parameters():
        muon = config.optimizer == "muon" and is_layer_matrix(name, parameter)
        decays = decays_all or muon or is_decayed(name, parameter, config.decay_embeddings)
        scale = config.head_lr_scale if name.startswith(NEW_HEADS) else 1.0
        order = MUON if muon else DECAYED if decays else NOT_DECAYED
        if name.endswith("temperature"):
            decays, scale = decays_all or config.decay_embeddings, config.temperature_lr_scale
            order = TEMPERATURE
        decay = config.weight_decay if decays else 0.0
        alike.setdefault((order, decay, scale), []).append((name, parameter))
    groups: list[dict[str, Any]] = [
        {"params": alike[key], "weight_decay": key[1], "lr_scale": key[2], "muon": key[0] == MUON}
        for key in sorted(alike)
    ]
    return OPTIMIZERS[config.optimizer](groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=True)


def lr_at(step: int, config: TrainConfig, steps_per_epoch: int) -> float:
    """The learning rate of a step: linear warm-up, then cosine decay to `min_lr`."""
    if config.schedule == "published":
        return published_lr(step, config, steps_per_epoch)
    if config.schedule == "open_clip":
        return open_clip_lr(step, config)
    if config.schedule == "linear":
        return linear_lr(step, config)
    if step < config.warmup_steps:
        return config.warmup_lr + (config.lr - config.warmup_lr) * step / config.warmup_steps
    progress = (step - config.warmup_steps) / max(config.steps - config.warmup_steps, 1)
    return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2


def open_clip_lr(step: int, config: TrainConfig) -> float:
    """open_clip's schedule: linear warm-up that begins above 0, then cosine decay to 0.

    Step s has lr·(s + 1)/W in the warm-up of W steps, then lr·½·(1 + cos(π·(s − W)/(T − W))) until step T.
    """
    warmup = config.warmup_steps
    if step < warmup:
        return config.lr * (step + 1) / warmup
    return config.lr * (1 + math.cos(math.pi * (step - warmup) / max(config.steps - warmup, 1))) / 2


def linear_lr(step: int, config: TrainConfig) -> float:
    """BERT's schedule: a rise from 0 to lr over the warm-up of W steps, then a straight fall to 0 at step T."""
    warmup = config.warmup_steps
    if step < warmup:
        return config.lr * step / warmup
    return config.lr * max(config.steps - step, 0) / max(config.steps - warmup, 1)


def published_lr(step: int, config: TrainConfig, steps_per_epoch: int) -> float:
    """The published schedule: warm-up in stairs of 100 steps in the first epoch, then cosine decay by epochs."""
    epoch, inner = divmod(step, steps_per_epoch)
    if epoch:
        epochs = math.ceil(config.steps / steps_per_epoch)
        return config.min_lr + (config.lr - config.min_lr) * (1 + math.cos(math.pi * epoch / epochs)) / 2
    stairs = config.warmup_steps // 100
    # The published scheduler moves after the optimizer: step 100·k still has the rate of the stair before.
    stair = max(inner - 1, 0) // 100
    if stairs == 0 or stair >= stairs:
        return config.lr
    return config.warmup_lr + (config.lr - config.warmup_lr) * stair / stairs


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def stage_at(step: int, config: Config, steps_per_epoch: int) -> Stage:
    """The scheduled values of a step: alpha, hardness of negatives, and whether ITM and MLM are trained yet."""
    task = config.task
    ramp = steps_per_epoch if task.alpha_ramp_steps < 0 else task.alpha_ramp_steps
    alpha = task.alpha * (min(1.0, step / ramp) if ramp else 1.0) if task.distill else 0.0
    first = round(task.align_first * config.train.steps)
    ramped = round(task.hardness_ramp * (config.train.steps - first))
    hardness = task.hardness * (max(0.0, min(1.0, (step - first) / ramped)) if ramped else 1.0)
    return Stage(alpha, hardness, fuse=step >= first, step=step, distill=task.distill)
