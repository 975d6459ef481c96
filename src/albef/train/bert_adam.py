"""BertAdam: AdamW without bias correction, as BERT and LXMERT were trained with it (Devlin et al., NAACL 2019)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

# AdamW divides its moments by 1 − βᵗ. After so many steps that is 1, and so it is from the first step on.
STEPS_BEFORE = 2.0**20


class BertAdam(torch.optim.AdamW):
    """AdamW whose moments, zeros at first, count as means of many steps. So the first updates are several times lr."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """One step of all parameters with a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    self.state[parameter] = {
                        "step": torch.full((), STEPS_BEFORE, device=parameter.device),
                        "exp_avg": torch.zeros_like(parameter),
                        "exp_avg_sq": torch.zeros_like(parameter),
                    }
        super().step()
