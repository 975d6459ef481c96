"""The machine's limit: the fastest matrix product that any of its libraries reaches, by precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from section import Section
from timing import interleaved

from albef.model import kernels

# Rows, inner width, columns: both feed-forward layers of the image encoder for 8 images of 257 tokens, and a square.
SHAPES = (2056, 768, 3072), (2056, 3072, 768), (2048, 2048, 2048)
ROUNDS = 9


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
    """Best rates of torch, oneDNN and NumPy over the shapes; NumPy on one thread alone."""
    rates: dict[str, float] = {}
    with torch.inference_mode():
        for shape in SHAPES:
            rows, inner, columns = shape
            cases = products(*shape) | ({} if threads > 1 else {"fp32 NumPy": numpy_product(*shape)})
            for name, timing in interleaved(cases, ROUNDS, threads).items():
                rate = 2 * rows * inner * columns / min(timing.rounds) / 1e9
                rates[name] = max(rate, rates.get(name, 0.0))
    return Limits(rates)


def products(rows: int, inner: int, columns: int) -> dict[str, Callable[[], object]]:
    """The product through torch, into memory that is there already, and through oneDNN with weights laid out for it."""
    cases: dict[str, Callable[[], object]] = {}
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        states, weight = torch.randn(rows, inner, dtype=dtype), torch.randn(columns, inner, dtype=dtype)
        bias, out = torch.randn(columns, dtype=dtype), torch.empty(rows, columns, dtype=dtype)
        cases[f"{precision} torch"] = partial(F.linear, states, weight, bias)
        cases[f"{precision} torch, into a given result"] = partial(torch.mm, states, weight.T, out=out)
        if kernels.onednn_is_there():
            packed = kernels.laid_out(weight, rows)
            cases[f"{precision} oneDNN"] = partial(kernels.onednn, states, weight, bias)
            cases[f"{precision} oneDNN, weights laid out before"] = partial(
                kernels.onednn, states, packed, bias
            )
    return cases


def numpy_product(rows: int, inner: int, columns: int) -> Callable[[], object]:
    """The product through NumPy."""
    rng = np.random.default_rng(0)
    states = rng.standard_normal((rows, inner), np.float32)
    weight = rng.standard_normal((inner, columns), np.float32)
    return lambda: states @ weight


def limits_section(by_threads: dict[int, Limits]) -> Section:
    """The limits that were measured in this run."""
    names = dict.fromkeys(name for limits in by_threads.values() for name in limits.by_library)
    rows = [
        [
            name,
            *(
                f"{limits.by_library[name]:.0f}" if name in limits.by_library else "–"
                for limits in by_threads.values()
            ),
        ]
        for name in names
    ]
    shapes = ", ".join(f"[{rows}, {inner}] × [{inner}, {columns}]" for rows, inner, columns in SHAPES)
    text = (
        "Billions of floating-point operations a second. "
        f"Each figure is the best of {ROUNDS} rounds and of three products: {shapes}. "
        "The best row of a precision is the limit that the tables below compare with."
    )
    header = ["product", *(f"{threads} thread{'s' * (threads > 1)}" for threads in by_threads)]
    return Section("How fast can this machine multiply matrices?", text, header, rows)
