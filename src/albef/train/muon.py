"""Muon: AdamW, but weight matrices of layers move by orthogonalised momentum (Jordan et al., 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

MOMENTUM = 0.95
# An AdamW step moves a weight by about 0.2 of the learning rate. So do these steps, so one rate serves both.
STEP_RMS = 0.2
# Coefficients of a quintic polynomial that brings singular values in (0, 1] close to 1 within five rounds.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


def is_layer_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a weight matrix inside a layer, not an embedding, projection of features or head."""
    return parameter.ndim == 2 and (".blocks." in name or ".layers." in name)


class Muon(torch.optim.AdamW):
    """AdamW, but matrices in parameter groups with `muon: True` move by `orthogonal` momentum."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of all parameters with a gradient. The gradients of the matrices are set to None."""
        assert closure is None
        for group in self.param_groups:
            if group.get("muon"):
                self._step_matrices(group)
        super().step()

    def _step_matrices(self, group: dict[str, Any]) -> None:
        alike: dict[
            torch.Size, list[nn.Parameter]
        ] = {}  # many small products are slower than one batched product
        for parameter in group["params"]:
            if parameter.grad is not None:
                alike.setdefault(parameter.shape, []).append(parameter)
        for (rows, columns), parameters in alike.items():
            ahead = torch.stack([self._look_ahead(parameter) for parameter in parameters])
            scale = STEP_RMS * max(rows, columns) ** 0.5
            for parameter, direction in zip(parameters, orthogonal(ahead), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"] * scale)
                parameter.grad = None  # so that AdamW skips it

    def _look_ahead(self, parameter: nn.Parameter) -> Tensor:
        """Nesterov momentum: the running mean of gradients, averaged once more with the newest gradient."""
        state = self.state[parameter]
        if not state:
            # AdamW expects a step in the state of every loaded parameter.
            state.update(step=torch.zeros(()), momentum=torch.zeros_like(parameter))
        assert parameter.grad is not None
        mean = state["momentum"].lerp_(parameter.grad, 1 - MOMENTUM)
        return torch.lerp(parameter.grad, mean, MOMENTUM)


def precision(matrices: Tensor) -> torch.dtype:
    """The precision of the iterations, which correct their own rounding: bf16 on a GPU, many times as fast there."""
    return matrices.dtype if matrices.device.type == "cpu" else torch.bfloat16


def orthogonal(matrices: Float[Tensor, "stack rows columns"]) -> Float[Tensor, "stack rows columns"]:
    """Matrices with the same singular vectors and singular values near 1 (0.7–1.2), by Newton–Schulz iterations.

    Singular values that are tiny relative to the others stay small. A GPU iterates in bf16.
    """
    wide = matrices if matrices.shape[1] <= matrices.shape[2] else matrices.mT
    a, b, c = COEFFICIENTS
    found = (wide / (wide.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).to(precision(wide))
    for _ in range(ROUNDS):
        gram = found @ found.mT
        pull = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        found = torch.baddbmm(found, pull, found, beta=a)
    return found if wide is matrices else found.mT
