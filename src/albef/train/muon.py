"""Muon: the matrices of the layers move by their orthogonalised momentum (Jordan et al., 2024), all else by AdamW."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOMENTUM = 0.95
# A step of AdamW is about a fifth of its rate per weight; so are these, so that one rate serves both.
STEP_RMS = 0.2
# Of a quintic polynomial that pulls every singular value from (0, 1] to about 1 within five rounds.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def is_layer_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter maps states to states inside a layer: no embedding, no projection of features, no head."""
    return parameter.ndim == 2 and (".blocks." in name or ".layers." in name)


class Muon(torch.optim.AdamW):
    """AdamW, except for parameter groups with `muon: True`, whose matrices move by `orthogonal` momentum."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient; those of the matrices are spent."""
        assert closure is None
        for group in self.param_groups:
            if group.get("muon"):
                self._step_matrices(group)
        super().step()

    def _step_matrices(self, group: dict[str, Any]) -> None:
        alike: dict[torch.Size, list[nn.Parameter]] = {}  # many small products are slower than one of a stack
        for parameter in group["params"]:
            if parameter.grad is not None:
                alike.setdefault(parameter.shape, []).append(parameter)
        for (rows, columns), parameters in alike.items():
            ahead = torch.stack([self._look_ahead(parameter) for parameter in parameters])
            scale = STEP_RMS * max(rows, columns) ** 0.5
            for parameter, direction in zip(parameters, orthogonal(ahead), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"] * scale)
                parameter.grad = None  # AdamW passes over it

    def _look_ahead(self, parameter: nn.Parameter) -> Tensor:
        """Nesterov's momentum: the mean of the gradients, and of it and the newest one again."""
        state = self.state[parameter]
        if not state:
            # AdamW looks for a step in the state of every parameter that is loaded.
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(parameter))
        assert parameter.grad is not None
        mean = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        return torch.lerp(parameter.grad, mean, MOMENTUM)


def orthogonal(matrices: Float[Tensor, "stack rows columns"]) -> Float[Tensor, "stack rows columns"]:
    """Matrices with the same singular vectors, whose singular values lie near 1 (0.7–1.2), by Newton–Schulz rounds.

    Those that are nearly zero beside the others stay small.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    a, b, c = COEFFICIENTS
    found = wide / (wide.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(ROUNDS):
        gram = found @ found.mT
        pull = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        found = torch.baddbmm(found, pull, found, beta=a)
    return found if wide is matrices else found.mT
