"""Fair timing: cases are run in turn within one process, so that what disturbs the machine disturbs them alike."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

MIN_ROUNDS = 5


@dataclass
class Timing:
    """Seconds of each counted round."""

    rounds: list[float] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median round."""
        return statistics.median(self.rounds)

    @property
    def spread(self) -> str:
        """The fastest and the slowest round."""
        return f"{min(self.rounds):.3g}–{max(self.rounds):.3g} s"


def interleaved(
    cases: Mapping[str, Callable[[], object]], rounds: int = MIN_ROUNDS, threads: int = 1
) -> dict[str, Timing]:
    """Timings of the cases by name: one round to warm up, then `rounds` counted ones, each case once a round.

    On one thread it is the CPU time of this process, which does not see other processes; on more it is wall time.
    """
    timings, clock = (
        {name: Timing() for name in cases},
        time.process_time if threads == 1 else time.perf_counter,
    )
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    for number in range(rounds + 1):
        for name, case in cases.items():
            live(f"round {number} of {rounds}: {name}" if number else f"warming up: {name}")
            begin = clock()
            case()
            if number:
                timings[name].rounds.append(clock() - begin)
    torch.set_num_threads(before)
    live("")
    return timings


def live(text: str) -> None:
    """Shows on a terminal, in the place of what was there before, what is being done."""
    if sys.stderr.isatty():
        print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
