"""How the device of a run computes: in one graph, in TF32, with results that repeat bit for bit."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from albef.config import TrainConfig, UserError
from albef.tasks.base import Task

# The dimension that varies from batch to batch: the length of texts, the number of masked tokens.
VARYING = {"ids": 1, "mask": 1, "masked_ids": 1, "mlm_positions": 0, "mlm_labels": 0, "states": 0}


def check_device(config: TrainConfig, device: torch.device) -> None:
    """Raises `UserError` for settings that cannot be used on this device."""
    if config.compile and device.type == "cpu":
        raise UserError(
            "train.compile is on, but this run uses a CPU, where padding is removed and no step has a fixed graph: "
            "set train.compile to off."
        )


def set_up(config: TrainConfig, device: torch.device) -> None:
    """Makes this process compute as the recipe says."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = config.tf32
    if config.deterministic:
        os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # cuBLAS reads it at its first product
    torch.use_deterministic_algorithms(config.deterministic)


def compile_step(task: Task, config: TrainConfig) -> None:
    """From now on the task computes `prepare` and `forward` as one graph each."""
    # Kernels chosen by timing could differ from one start to the next.
    options: dict[str, Any] | None = {"deterministic": True} if config.deterministic else None
    task.prepare = torch.compile(task.prepare, options=options)  # type: ignore[method-assign]
    task.compile(options=options)


def mark_varying(named: Mapping[str, object]) -> None:
    """Tells the compiler which dimensions vary. Otherwise it would compile again for the second size."""
    for name, tensor in named.items():
        if name in VARYING and isinstance(tensor, Tensor):
            torch._dynamo.maybe_mark_dynamic(tensor, VARYING[name])
