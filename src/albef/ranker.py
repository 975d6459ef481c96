"""In which order things are found: the one place that turns contrast and matching into ordered hits (paper §5).

`Engine`, search and evaluation all order by it. What will also say how probable a hit is (captions to compare with, a
calibration) belongs in `combined` and `hits_of`, where all of them get it at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np


class Hit(NamedTuple):
    """Something found: its number in the gallery, what it was ordered by, and the two scores that this was made of."""

    number: int
    score: float  # similarity / temperature, plus `match` where there is one; compares hits of one query only
    similarity: float  # cosine of the two features
    match: float | None = (
        None  # log-odds that text and image belong together; None where only features were compared
    )
    path: Path | None = None  # the file, of hits in an index


def best_first(scores: np.ndarray, count: int) -> np.ndarray:
    """Numbers of each row's `count` highest scores (all, where there are fewer), the best first, ties as they stood."""
    return np.argsort(-scores, axis=-1, kind="stable")[..., :count]


def combined(similarity: np.ndarray, match: np.ndarray, temperature: float) -> np.ndarray:
    """Contrast and matching as one score: similarity / temperature + log-odds of a match; -inf stays -inf."""
    both: np.ndarray = similarity / temperature + match
    return both


def hits_of(
    similarity: np.ndarray,
    chosen: np.ndarray,
    match: np.ndarray | None,
    temperature: float,
    k: int,
) -> list[Hit]:
    """The `k` best of the chosen numbers of a gallery, the best first.

    `similarity` [gallery] is of all; `match` [chosen] are the log-odds of the chosen ones, None without matching.
    """
    near = similarity[chosen]
    scores = near / temperature if match is None else combined(near, match, temperature)
    return [
        Hit(int(chosen[n]), float(scores[n]), float(near[n]), None if match is None else float(match[n]))
        for n in best_first(scores, k)
    ]


def others_last(scores: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """`scores` [Q, N] with each row's -inf replaced: below all candidates, in the order of the similarity."""
    absent = np.isneginf(scores)
    lowest = np.min(scores, axis=1, keepdims=True, where=~absent, initial=0.0).astype(np.float64)
    below = lowest - 1 + (similarity - similarity.max(axis=1, keepdims=True))
    return np.where(absent, below, scores)


def probability(log_odds: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-log-odds)), without overflow."""
    chances: np.ndarray = np.exp(-np.logaddexp(0, -log_odds))
    return chances
