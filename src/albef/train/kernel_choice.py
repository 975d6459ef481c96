"""Precision and kernels of a run: chosen by a short measurement, printed, and kept when the run is resumed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from albef.config import Config
from albef.model import kernels
from albef.model.image_encoder import ImageBlock
from albef.model.kernels import Kernels

SECONDS = 0.8  # of measuring
MIN_ROUNDS = 3
MAX_ROWS = 512  # tokens that are measured with
# What is faster by less stays unused: a choice must not hang on the noise of a moment.
WORTHWHILE = 1.15


class Choice(NamedTuple):
    """How a run computes."""

    precision: str  # "fp32" or "bf16"
    attention: str  # "fused" or "plain"
    linear: str  # "torch" or "onednn"

    @property
    def kernels(self) -> Kernels:
        """What the model is told."""
        return Kernels(self.attention, self.linear)

    @classmethod
    def from_facts(cls, facts: Mapping[str, object]) -> Choice:
        """The choice that a checkpoint was written with."""
        return cls(*(str(facts[name]) for name in cls._fields))


def choose(config: Config, device: torch.device) -> tuple[Choice, str]:
    """The fastest of what the settings leave open, and a sentence that says how it was found.

    Forward and backward through an image block of the model's width are timed in turn, and the medians compared.
    """
    candidates = open_choices(config, device)
    if len(candidates) == 1:
        return candidates[0], f"{described(candidates[0])}, as set"
    seconds = measure(candidates, config, device)
    best = candidates[0]
    for candidate in candidates[1:]:
        if seconds[best] / seconds[candidate] > WORTHWHILE:
            best = candidate
    usual = seconds[candidates[0]]
    if best == candidates[0]:
        fastest = usual / min(seconds.values())
        return (
            best,
            f"{described(best)}: no other choice is {WORTHWHILE} times as fast ({fastest:.2f}, measured)",
        )
    return (
        best,
        f"{described(best)}: {usual / seconds[best]:.1f} times the speed of {described(candidates[0])}",
    )


def described(choice: Choice) -> str:
    """The choice in words."""
    oned = ", oneDNN" if choice.linear == "onednn" else ""
    return f"{choice.precision}, {choice.attention} attention{oned}"


def open_choices(config: Config, device: torch.device) -> list[Choice]:
    """What the settings and the device leave to choose from, the usual one first."""
    train, cpu = config.train, device.type == "cpu"
    usual = Choice("fp32", "fused" if train.attention == "auto" else train.attention, "torch")
    found = [usual] if train.linear != "onednn" else []
    if cpu and train.linear != "torch" and kernels.onednn_is_there():
        found.append(usual._replace(linear="onednn"))
    if train.precision == "fp32":
        return found or [usual]
    if train.precision == "bf16":
        found = []
    if train.precision == "bf16" or computes_bf16(device):
        # Plain products first: on CPUs they are the usual ones in bf16. Linear layers are oneDNN's in any case.
        both = ("plain", "fused") if cpu else ("fused",)
        wanted = both if train.attention == "auto" else (train.attention,)
        found += [Choice("bf16", attention, "torch") for attention in wanted]
    return found


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 arithmetic of its own."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


def measure(candidates: Sequence[Choice], config: Config, device: torch.device) -> dict[Choice, float]:
    """Median seconds of forward and backward through an image block, by choice; the kernels in use stay."""
    model, before = config.model, kernels.used()
    block = ImageBlock(model.image_width, model.image_heads, model.image_mlp_width).to(device)
    tokens = model.grid**2 + 1
    pairs = config.train.batch_size // config.train.processes
    rows = max(1, min(pairs, MAX_ROWS // tokens))
    states = torch.randn(rows, tokens, model.image_width, device=device)
    spent = {choice: list[float]() for choice in candidates}
    started = time.perf_counter()
    while time.perf_counter() - started < SECONDS or len(spent[candidates[0]]) < MIN_ROUNDS:
        # Another shape in each round, as packed texts have them: some libraries prepare anew for every one.
        states = states[:, : max(2, states.shape[1] - 1)]
        for choice in candidates:
            kernels.use(choice.kernels)
            begin = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=choice.precision == "bf16"):
                block(states).sum().backward()
            if device.type == "cuda":
                torch.cuda.synchronize()
            spent[choice].append(time.perf_counter() - begin)
    kernels.use(before)
    return {choice: statistics.median(seconds) for choice, seconds in spent.items()}
