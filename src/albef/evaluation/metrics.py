"""Metrics, in NumPy alone: recall, preference for the true caption, intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

NUM_RESAMPLES = 2000
Z = 1.959964  # standard deviations that bound the middle 95 % of a normal distribution


def ranks(scores: np.ndarray, truth: Sequence[int | Sequence[int]]) -> np.ndarray:
    """The number of wrong candidates ranked before the best correct one, int [Q]. 0 means that the first is right.

    `scores` is [Q, N]. `truth` gives the correct column or columns of each query. Wrong candidates with the same score,
    or with NaN, count as ranked before. So a constant score is never right.
    """
    found = np.empty(len(scores), dtype=np.int64)
    for query, (row, correct) in enumerate(zip(scores, truth, strict=True)):
        columns = np.atleast_1d(np.asarray(correct))
        behind = row < row[columns].max()
        behind[columns] = True
        found[query] = len(row) - behind.sum()
    return found


def recall_at(scores: np.ndarray, truth: Sequence[int | Sequence[int]], k: int) -> float:
    """Share of queries with a correct candidate among the first `k`. For ties see `ranks`."""
    return float((ranks(scores, truth) < k).mean())


def preferences(true_scores: np.ndarray, false_scores: np.ndarray) -> np.ndarray:
    """1 if the true one scores higher, 0 if the false one does, ½ for a tie, float [N]."""
    preferred: np.ndarray = (true_scores > false_scores) + 0.5 * (true_scores == false_scores)
    return preferred


def interval(*samples: tuple[np.ndarray, Sequence[int] | np.ndarray], seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of the mean of values in 0–1, if queries of one image are not independent.

    A sample is values [N] and the cluster of each. Queries of one cluster (the captions of an image) are drawn together.
    With several samples, the interval is that of the mean of their means, and a cluster is drawn for all at once.
    Shares (all values 0 or 1) get a Wilson interval for the number of independent queries with the same variance, at
    most N. If all are right or all wrong, this number is the number of clusters. Other means get percentiles of a
    bootstrap over clusters, drawn from `seed`. If the rarer outcome is in fewer than about ten clusters, the interval is
    slightly too narrow.
    """
    values = [np.asarray(sample, dtype=np.float64) for sample, _ in samples]
    names, of_all = np.unique(np.concatenate([of for _, of in samples]), return_inverse=True)
    clusters = np.split(of_all, np.cumsum([len(sample) for sample in values])[:-1])
    mean = float(np.mean([sample.mean() for sample in values]))
    if mean in (0.0, 1.0):
        return wilson(mean, len(names))
    if len(samples) == 1 and np.isin(values[0], (0.0, 1.0)).all():
        return wilson(mean, effective_count(values[0], clusters[0]))
    sums = [np.bincount(of, sample, len(names)) for sample, of in zip(values, clusters, strict=True)]
    sizes = [np.bincount(of, minlength=len(names)) for of in clusters]
    rng = np.random.default_rng(seed)
    means = np.empty(NUM_RESAMPLES)
    for number in range(NUM_RESAMPLES):
        drawn = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        means[number] = np.mean(
            [drawn @ total / (drawn @ size) for total, size in zip(sums, sizes, strict=True)]
        )
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def effective_count(hits: np.ndarray, clusters: np.ndarray) -> float:
    """The number of independent queries that would give the mean of `hits` [N] the same variance, at most N.

    `clusters` [N] are numbers from 0. The variance is the cluster-robust one, with the factor G / (G - 1).
    """
    share, count = hits.mean(), clusters.max() + 1
    if count == 1:
        return 1.0
    of_cluster = np.bincount(clusters, hits - share)
    variance = count / (count - 1) * (of_cluster @ of_cluster) / len(hits) ** 2
    # If clusters balance each other, this could exceed the number of queries, up to an interval of width 0.
    return float(share * (1 - share) / max(variance, share * (1 - share) / len(hits)))


def wilson(share: float, count: float) -> tuple[float, float]:
    """The 95 % Wilson score interval of a share of `count` independent queries (Wilson 1927)."""
    shrink = 1 + Z**2 / count
    middle = (share + Z**2 / (2 * count)) / shrink
    half = Z * (share * (1 - share) / count + Z**2 / (4 * count**2)) ** 0.5 / shrink
    # Rounding must not exclude the share itself.
    return min(max(middle - half, 0.0), share), max(min(middle + half, 1.0), share)
