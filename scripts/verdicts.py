"""The rule by which a claim held or did not hold. It was written before anything was measured.

Two things are compared seed by seed. The verdict follows from the t interval of the mean difference.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from albef.config import UserError

HELD, NOT, UNKNOWN, MISSING = "held", "did not hold", "cannot be told", "not measured yet"
EQUAL = 0.01  # differences of at most one point count as none
# 97.5 % quantiles of Student's t, by degrees of freedom.
T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}


class Difference(NamedTuple):
    """The mean difference of pairs, its 95 % interval, and the number of pairs."""

    mean: float
    low: float
    high: float
    pairs: int


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """The difference of figures by seed, of the seeds that both have. None if there is no such seed.

    With one pair there is no interval: its ends are infinite.
    """
    return mean_of([ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())])


def mean_of(values: Sequence[float]) -> Difference | None:
    """The mean of values and its t interval. None if there is no value."""
    if not values:
        return None
    mean, pairs = statistics.fmean(values), len(values)
    if pairs == 1:
        return Difference(mean, -math.inf, math.inf, pairs)
    if pairs - 1 not in T:
        raise UserError(
            f"{pairs} pairs: the table of t quantiles in scripts/verdicts.py ends at {max(T) + 1}."
        )
    half = T[pairs - 1] * statistics.stdev(values) / math.sqrt(pairs)
    return Difference(mean, mean - half, mean + half, pairs)


def verdict(found: Difference | None) -> str:
    """Above 0: held. Below 0, or wholly within one point of 0: did not hold. Else it cannot be told."""
    if found is None:
        return MISSING
    if found.low > 0:
        return HELD
    if found.high < 0 or (found.low >= -EQUAL and found.high <= EQUAL):
        return NOT
    return UNKNOWN
