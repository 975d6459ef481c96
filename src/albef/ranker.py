"""Turns ITC and ITM scores into ordered hits (paper §5). `Engine`, search and evaluation all use this one place.

Anything that makes a score more probable or comparable (a bank of captions, a calibration) belongs into `combined` and
`hits_of`, so that all three get it.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np


class Hit(NamedTuple):
    """A hit: its number in the gallery, the score that it was ordered by, and the two parts of this score.

    If a second model could not read an image that it should re-rank, the score is -inf. Then, and from a model that
    compares no features, the similarity is nan.
    """

    number: int
    score: float  # similarity / temperature, plus `match` if there is one; only comparable within one query
    similarity: float  # cosine of the two features
    match: float | None = (
        None  # log-odds that text and image belong together; None if only features were compared
    )
    path: Path | None = None  # the file, for hits from an index
    index_similarity: float | None = None  # by the model of the index, if a second one re-ranked


def best_first(scores: np.ndarray, count: int) -> np.ndarray:
    """The numbers of each row's `count` highest scores (at most all), best first. Ties keep their order."""
    return np.argsort(-scores, axis=-1, kind="stable")[..., :count]


def combined(similarity: np.ndarray, match: np.ndarray, temperature: float) -> np.ndarray:
    """ITC and ITM as one score: similarity / temperature + log-odds of a match. -inf stays -inf."""
    both: np.ndarray = similarity / temperature + match
    return both


def hits_of(
    similarity: np.ndarray,
    chosen: np.ndarray,
    match: np.ndarray | None,
    temperature: float,
    k: int,
) -> list[Hit]:
    """The `k` best of the chosen numbers of a gallery, best first.

    `similarity` [gallery] is for all. `match` [chosen] are the log-odds of the chosen ones, or None without ITM.
    """
    near = similarity[chosen]
    scores = near / temperature if match is None else combined(near, match, temperature)
    return [
        Hit(int(chosen[n]), float(scores[n]), float(near[n]), None if match is None else float(match[n]))
        for n in best_first(scores, k)
    ]


def hits_of_matches(match: np.ndarray, k: int) -> list[Hit]:
    """The `k` best of a gallery of which only matching log-odds are known, best first."""
    return [Hit(int(n), float(match[n]), float(np.nan), float(match[n])) for n in best_first(match, k)]


def others_last(scores: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """`scores` [Q, N] with -inf replaced, so that these follow all other candidates in the order of similarity."""
    absent = np.isneginf(scores)
    lowest = np.min(scores, axis=1, keepdims=True, where=~absent, initial=0.0).astype(np.float64)
    below = lowest - 1 + (similarity - similarity.max(axis=1, keepdims=True))
    return np.where(absent, below, scores)


def probability(log_odds: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-log-odds)), without overflow."""
    chances: np.ndarray = np.exp(-np.logaddexp(0, -log_odds))
    return chances
