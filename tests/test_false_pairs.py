"""Finding false pairs: precision by hand, and what counts as another caption."""

import numpy as np
import pytest
from false_pairs import precisions, preferred


def test_precision_by_hand() -> None:
    # By suspicion: false, true, false, true; so half of the false ones are found with precision 1, all with 2/3.
    found = precisions(np.array([0.9, 0.1, 0.7, 0.8]), np.array([True, False, True, False]))
    assert found["average_precision"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["at_0.5"] == pytest.approx(1.0)
    assert found["at_0.75"] == pytest.approx(2 / 3)


def test_precision_at_a_recall_is_the_best_at_that_recall_or_above() -> None:
    suspicion, false = -np.arange(6.0), np.array([False, True, True, True, True, False])
    found = precisions(suspicion, false)
    assert found["at_0.1"] == found["at_0.9"] == pytest.approx(4 / 5)


def test_a_guess_is_as_precise_as_false_pairs_are_frequent() -> None:
    rng = np.random.default_rng(0)
    false = rng.random(20_000) < 0.3
    assert precisions(rng.random(20_000), false)["average_precision"] == pytest.approx(0.3, abs=0.02)


def test_a_caption_of_the_same_meaning_is_no_other_one() -> None:
    similarity = np.array([[0.5, 0.9, 0.2], [0.9, 0.5, 0.1], [0.3, 0.1, 0.8]])
    assert preferred(similarity, np.array([1, 1, 2])) == pytest.approx([-0.3, -0.4, -0.5])
    assert preferred(similarity, np.array([1, 1, 1])) == pytest.approx([-1, -1, -1])
