"""Precision of a run: chosen by a short measurement, printed, and kept when the run is resumed."""

from __future__ import annotations

import math
import time

import torch
from torch import nn

from albef.config import Config


def choose_precision(config: Config, device: torch.device) -> tuple[str, str]:
    """`"fp32"` or `"bf16"`, and a sentence that says why."""
    wanted = config.train.precision
    if wanted != "auto":
        return wanted, f"precision {wanted}, as set"
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported()
    if not native:
        return "fp32", "precision fp32: this device has no bf16 arithmetic"
    rows = min(config.train.batch_size // config.train.processes * (config.model.grid**2 + 1), 4096)
    fp32, bf16 = seconds_of_layer(config.model.image_width, rows, device)
    ratio = fp32 / bf16
    chosen = "bf16" if ratio > 1.1 else "fp32"
    return chosen, f"precision {chosen}: bf16 runs this model's layers at {ratio:.1f} times the speed of fp32"


def seconds_of_layer(width: int, rows: int, device: torch.device) -> tuple[float, float]:
    """Best times of forward and backward through a feed-forward layer in fp32 and bf16, taken in turn."""
    layer = nn.Sequential(
        nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
    )
    layer.to(device)
    states = torch.randn(rows, width, device=device)
    best = {False: math.inf, True: math.inf}
    started = time.perf_counter()
    while time.perf_counter() - started < 0.6:
        for bf16 in best:
            begin = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                layer(states).sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            best[bf16] = min(best[bf16], time.perf_counter() - begin)
    return best[False], best[True]
