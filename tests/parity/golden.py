"""Golden files: what they hold, and how far a tensor is off."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

TIGHT = (1e-4, 1e-5)  # rtol, atol
AFTER_ADAM = (1e-3, 2e-4)

Comparison = tuple[str, Tensor, Tensor, tuple[float, float]]


class Golden:
    """One golden file: its case and its tensors by group, on torch's default device."""

    def __init__(self, path: Path) -> None:
        self.path, device = path, torch.empty(0).device
        with safe_open(path, "pt") as file:
            self.case: dict[str, Any] = json.loads(file.metadata()["case"])
            self.tensors: dict[str, Tensor] = {name: file.get_tensor(name).to(device) for name in file.keys()}  # noqa: SIM118

    def group(self, prefix: str) -> dict[str, Tensor]:
        """Tensors of a group without its prefix."""
        return {
            name[len(prefix) :]: tensor for name, tensor in self.tensors.items() if name.startswith(prefix)
        }


def compare(
    got: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    tolerance: tuple[float, float],
    prefix: str = "",
) -> Iterator[Comparison]:
    """A comparison per expected tensor; one that we don't have is compared with NaN."""
    for name, value in expected.items():
        missing = torch.full_like(value, torch.nan, dtype=torch.float32)
        yield prefix + name, got.get(name, missing).detach(), value, tolerance


def deviation(got: Tensor, expected: Tensor, tolerance: tuple[float, float]) -> tuple[float, float, bool]:
    """Largest absolute and relative deviation, and whether all of it is within rtol and atol."""
    if got.shape != expected.shape:
        return float("inf"), float("inf"), False
    rtol, atol = tolerance
    difference = (got.double() - expected.double()).abs()
    size = expected.double().abs()
    relative = (difference / size.clamp(min=atol or 1e-30)).max().item()
    return difference.max().item(), relative, bool((difference <= atol + rtol * size).all())
