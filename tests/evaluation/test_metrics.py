"""Recall, preferences and intervals, against definitions and another library."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.retrieval import RetrievalHitRate

from albef.evaluation.metrics import preferences, ranks, recall_at

seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, queries=st.integers(1, 6), columns=st.integers(2, 12), k=st.integers(1, 12))
def test_recall_is_the_hit_rate_of_torchmetrics(seed: int, queries: int, columns: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(columns), (queries, 1)), axis=1).astype(np.float32)
    correct = [rng.choice(columns, rng.integers(1, columns), replace=False).tolist() for _ in range(queries)]
    target = torch.tensor([[column in row for column in range(columns)] for row in correct])
    query = torch.arange(queries)[:, None].expand(-1, columns)
    hit_rate = RetrievalHitRate(top_k=k)(torch.from_numpy(scores), target, indexes=query)
    assert recall_at(scores, correct, k) == pytest.approx(float(hit_rate))


def test_ranks_count_the_wrong_ones_before_the_best_right_one() -> None:
    scores = np.array([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5]])
    assert ranks(scores, [2, [0, 2]]).tolist() == [1, 1]
    assert ranks(scores, [[1, 2], 0]).tolist() == [0, 2]


@given(st.sampled_from([0.0, 1.0, np.nan, -np.inf]), st.integers(2, 20))
def test_a_constant_score_finds_nothing(constant: float, columns: int) -> None:
    scores = np.full((columns, columns), constant)
    assert recall_at(scores, range(columns), columns - 1) == 0
    assert recall_at(scores, range(columns), columns) == 1


def test_a_wrong_one_without_a_number_counts_as_before() -> None:
    assert ranks(np.array([[0.3, np.nan, 0.1]]), [0]).tolist() == [1]


def test_ties_are_half_a_preference() -> None:
    true, false = np.array([1.0, 2.0, 0.0, np.nan]), np.array([0.0, 2.0, 1.0, 0.0])
    assert preferences(true, false).tolist() == [1.0, 0.5, 0.0, 0.0]
    assert preferences(true[:3], false[:3]).mean() == 0.5
