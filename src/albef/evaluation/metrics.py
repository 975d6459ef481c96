"""Figures of merit, in NumPy alone: recall, preference for the truth, bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NUM_RESAMPLES = 2000


def ranks(scores: np.ndarray, truth: Sequence[int | Sequence[int]]) -> np.ndarray:
    """How many wrong candidates stand before the best correct one, int [Q]: 0 where the first is right.

    `scores` is [Q, N]; `truth` gives the correct column of each query, or all of them. A wrong candidate with
    the same score counts as standing before, so a constant score is right nowhere; so does one with NaN.
    """
    found = np.empty(len(scores), dtype=np.int64)
    for query, (row, correct) in enumerate(zip(scores, truth, strict=True)):
        columns = np.atleast_1d(np.asarray(correct))
        behind = row < row[columns].max()
        behind[columns] = True
        found[query] = len(row) - behind.sum()
    return found


def recall_at(scores: np.ndarray, truth: Sequence[int | Sequence[int]], k: int) -> float:
    """Share of queries with a correct candidate among the first `k`; for ties see `ranks`."""
    return float((ranks(scores, truth) < k).mean())


def preferences(true_scores: np.ndarray, false_scores: np.ndarray) -> np.ndarray:
    """1 where the true one scores higher, 0 where the false one does, ½ for a tie; float [N]."""
    preferred: np.ndarray = (true_scores > false_scores) + 0.5 * (true_scores == false_scores)
    return preferred


def bootstrap_interval(values: np.ndarray, seed: int, level: float = 0.95) -> tuple[float, float]:
    """Where the mean of `values` [N] lies with probability `level`: percentiles of the means of resamples."""
    return interval_of(resampled_means(values, seed), level)


def resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Means of `NUM_RESAMPLES` samples that are drawn from `values` [N] with replacement, each of its size."""
    rng = np.random.default_rng(seed)
    return np.array(
        [values[rng.integers(len(values), size=len(values))].mean() for _ in range(NUM_RESAMPLES)]
    )


def interval_of(means: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """The percentiles between which the middle `level` of the means lies."""
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
