"""The machine's limit: the fastest matrix product that any of its libraries reaches, by precision."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from section import Section
from timing import interleaved

ROWS, INNER, COLUMNS = 2056, 768, 3072  # the image encoder's feed-forward layer, 8 pictures of 257 tokens


@dataclass(frozen=True)
class Limits:
    """Billions of floating-point operations a second: of one thread by CPU time, of several by wall time."""

    by_library: dict[str, float]

    @property
    def fp32(self) -> float:
        """The best of all fp32 products."""
        return max(rate for name, rate in self.by_library.items() if name.startswith("fp32"))

    @property
    def bf16(self) -> float:
        """The best of all bf16 products."""
        return max(rate for name, rate in self.by_library.items() if name.startswith("bf16"))

    def of(self, bf16: bool) -> float:
        """The limit in a precision."""
        return self.bf16 if bf16 else self.fp32


def measure_limits(threads: int = 1) -> Limits:
    """Rates of the same product through torch, oneDNN and NumPy."""
    states, weight, bias = torch.randn(ROWS, INNER), torch.randn(COLUMNS, INNER), torch.randn(COLUMNS)
    half = [tensor.bfloat16() for tensor in (states, weight, bias)]
    transposed = np.ascontiguousarray(weight.numpy().T)
    cases = {
        "fp32 torch": lambda: F.linear(states, weight, bias),
        "fp32 NumPy": lambda: states.numpy() @ transposed,
        "bf16 torch": lambda: F.linear(*half),
    }
    if torch.backends.mkldnn.is_available():
        cases["fp32 oneDNN"] = lambda: torch.ops.mkldnn._linear_pointwise(
            states, weight, bias, "none", [], ""
        )
    operations = 2 * ROWS * INNER * COLUMNS
    timings = interleaved(cases, rounds=9, threads=threads)
    return Limits({name: operations / min(timing.rounds) / 1e9 for name, timing in timings.items()})


def limits_section(by_threads: dict[int, Limits]) -> Section:
    """The limits as they were measured in this run."""
    rows = [
        [name, *(f"{limits.by_library[name]:.0f}" for limits in by_threads.values())]
        for name in next(iter(by_threads.values())).by_library
    ]
    text = (
        f"The best of nine rounds of a product [{ROWS}, {INNER}] × [{INNER}, {COLUMNS}], which is a feed-forward layer "
        "of the image encoder for eight pictures; billions of operations a second. The limit in a precision is the best "
        "of its rows."
    )
    header = ["product", *(f"{threads} thread{'s' * (threads > 1)}" for threads in by_threads)]
    return Section("The machine's matrix products", text, header, rows)
