"""Chooses precision and kernels by a short measurement. The choice is printed, and kept when a run is resumed."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from albef import distributed, gpu
from albef.config import Config, UserError
from albef.model import kernels
from albef.model.kernels import Kernels
from albef.systems import SYSTEMS

SECONDS = 0.8  # the measurement takes at least this long
MIN_ROUNDS = 3
PIECES = 1000  # vocabulary size in the measurement
LONGEST_SECONDS = 0.3  # for one pass; a slower batch is measured with fewer pairs
# A smaller gain could be noise, so the usual choice stays.
WORTHWHILE = 1.15


class Choice(NamedTuple):
    """How a run computes."""

    precision: str  # "fp32" or "bf16"
    attention: str  # "fused" or "plain"
    linear: str  # "torch" or "onednn"

    @property
    def kernels(self) -> Kernels:
        """The kernels of this choice."""
        return Kernels(self.attention, self.linear)

    @classmethod
    def from_facts(cls, facts: Mapping[str, object]) -> Choice:
        """The choice noted in a checkpoint."""
        return cls(*(str(facts[name]) for name in cls._fields))


def choose(config: Config, device: torch.device) -> tuple[Choice, str]:
    """The fastest choice that the settings allow, and a sentence that says why it was taken.

    Times forward and backward passes of a model of the same widths at the run's shapes, in turn, and compares the
    medians. Raises `UserError` if a library is set that is not available.
    """
    candidates = open_choices(config, device)
    usual = candidates[0]
    if len(candidates) == 1:
        left_open = usual.precision == "bf16" and config.train.precision == "auto"
        return usual, f"{described(usual)} ({'supported by this device' if left_open else 'as set'})"
    seconds = measure(candidates, config, device)
    best = usual
    for candidate in candidates[1:]:
        if seconds[best] / seconds[candidate] > WORTHWHILE:
            best = candidate
    if best == usual:
        fastest = seconds[usual] / min(seconds.values())
        why = f"measured: the best alternative is {fastest:.2f} times as fast, used from {WORTHWHILE}"
        return best, f"{described(best)} ({why})"
    return (
        best,
        f"{described(best)} (measured: {seconds[usual] / seconds[best]:.1f} times as fast as {described(usual)})",
    )


def described(choice: Choice) -> str:
    """The choice in words."""
    oned = ", oneDNN" if choice.linear == "onednn" else ""
    return f"{choice.precision}, {choice.attention} attention{oned}"


def open_choices(config: Config, device: torch.device) -> list[Choice]:
    """The choices that settings and device allow, the usual one first.

    A GPU with bf16 arithmetic uses bf16 unless fp32 is set. Nothing is measured there.
    """
    train, cpu = config.train, device.type == "cpu"
    if train.linear == "onednn" and not (cpu and kernels.onednn_is_there()):
        raise UserError(
            "train.linear is onednn, but oneDNN needs a CPU and a build of torch that includes it. Set train.linear to "
            "auto."
        )
    usual = Choice("fp32", "fused" if train.attention == "auto" else train.attention, "torch")
    # "plain" first: it is the usual choice for bf16 on a CPU. bf16 linear layers use oneDNN in any case.
    attentions = ("plain", "fused") if cpu and train.attention == "auto" else (usual.attention,)
    in_bf16 = [Choice("bf16", attention, "torch") for attention in attentions]
    if train.precision == "bf16":
        return in_bf16
    has_bf16 = train.precision == "auto" and computes_bf16(device)
    if has_bf16 and not cpu:
        return in_bf16
    in_fp32 = [usual] if train.linear != "onednn" else []
    if cpu and train.linear != "torch" and kernels.onednn_is_there():
        in_fp32.append(usual._replace(linear="onednn"))
    return in_fp32 + (in_bf16 if has_bf16 else [])


def computes_bf16(device: torch.device) -> bool:
    """Whether the device has bf16 arithmetic in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


def measure(candidates: Sequence[Choice], config: Config, device: torch.device) -> dict[Choice, float]:
    """Choice → median seconds of a forward and backward pass at the run's shapes. Kernels in use do not change."""
    before = kernels.used()
    spent = {choice: list[float]() for choice in candidates}
    try:
        with torch.random.fork_rng(devices=[]):
            part = Part(config, device)
            part.grow(candidates[0])
            started = time.perf_counter()
            while time.perf_counter() - started < SECONDS or len(spent[candidates[0]]) < MIN_ROUNDS:
                part.draw()
                for choice in candidates:
                    spent[choice].append(part.seconds(choice))
    finally:
        kernels.use(before)
    return {choice: statistics.median(seconds) for choice, seconds in spent.items()}


class Part:
    """A model with the run's widths but few layers, and a batch with the run's token lengths.

    It has as many pairs as the run computes at once, or as can be timed within `LONGEST_SECONDS`.
    """

    def __init__(self, config: Config, device: torch.device) -> None:
        model, train = config.model, config.train
        processes = distributed.world_size() if distributed.in_group() else gpu.processes(train)
        share = max(1, train.batch_size // processes)
        self.pairs = min(train.micro_batch_size or share, share)
        depths = {name: getattr(model, name) for name in ("image_depth", "text_depth", "fusion_depth")}
        least = min(filter(None, depths.values()), default=1)
        fewer = {name: depth // least for name, depth in depths.items()}
        self.config, self.device = dataclasses.replace(model, vocab_size=PIECES, **fewer), device
        system = SYSTEMS[model.system]
        self.model = system.model(self.config, system.heads).to(device).train()
        self.draws = torch.Generator().manual_seed(0)

    def grow(self, choice: Choice) -> None:
        """Doubles the pairs until there are as many as in the run, or until a pass takes too long."""
        wanted, self.pairs = self.pairs, 1
        while True:
            self.draw()
            self.seconds(choice)  # the first pass is slower
            if self.pairs == wanted or self.seconds(choice) > LONGEST_SECONDS / 2:
                return
            self.pairs = min(2 * self.pairs, wanted)

    def draw(self) -> None:
        """Draws a batch with new text lengths, since some libraries prepare again for each number of tokens."""
        longest = self.config.max_tokens
        self.visual = self.model.sample_visual(self.pairs, self.draws).to(self.device)
        self.ids = torch.randint(PIECES, (self.pairs, longest), generator=self.draws).to(self.device)
        lengths = torch.randint(2, longest + 1, (self.pairs, 1), generator=self.draws)
        self.mask = (torch.arange(longest) < lengths).to(self.device)

    def seconds(self, choice: Choice) -> float:
        """Seconds of a forward and backward pass with this choice."""
        kernels.use(choice.kernels)
        begin = time.perf_counter()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=choice.precision == "bf16"):
            image, text = self.model.encode_image(self.visual), self.model.encode_text(self.ids, self.mask)
            total = image.feature.sum() + text.feature.sum()
            if self.model.can_match:
                total = total + self.model.match(text.tokens, self.mask, self.model.image_memory(image)).sum()
        total.backward()
        self.model.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin
