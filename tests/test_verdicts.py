"""Verdicts: the paired t interval against known values, and the rule at its edges."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from verdicts import HELD, MISSING, NOT, UNKNOWN, Difference, T, difference, mean_of, verdict

from albef.config import UserError

# Student's own example (1908): additional hours of sleep of ten patients under two drugs.
FIRST = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SECOND = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_the_interval_of_students_own_example() -> None:
    found = difference(dict(enumerate(SECOND)), dict(enumerate(FIRST)))
    assert found is not None
    assert found.pairs == 10
    # As every package of statistics gives it: 1.58, from 0.7001 to 2.4599.
    assert (found.mean, found.low, found.high) == pytest.approx((1.58, 0.7001, 2.4599), abs=5e-4)


def test_quantiles_are_those_of_the_distribution() -> None:
    """The distribution function of t at each quantile, by integrating its density."""
    for freedom, quantile in T.items():
        scale = math.gamma((freedom + 1) / 2) / (math.sqrt(freedom * math.pi) * math.gamma(freedom / 2))
        steps = 2_000
        width = quantile / steps
        area = sum(
            scale * (1 + ((n + 0.5) * width) ** 2 / freedom) ** (-(freedom + 1) / 2) * width
            for n in range(steps)
        )
        assert 0.5 + area == pytest.approx(0.975, abs=5e-5), freedom


def test_only_seeds_that_both_have_are_compared() -> None:
    assert difference({1: 0.5, 2: 0.6, 9: 0.0}, {1: 0.4, 2: 0.5, 3: 9.0}) == pytest.approx((0.1, 0.1, 0.1, 2))
    assert difference({1: 0.5}, {2: 0.5}) is None


def test_one_pair_tells_nothing() -> None:
    found = mean_of([0.5])
    assert found == Difference(0.5, -math.inf, math.inf, 1)
    assert verdict(found) == UNKNOWN


def test_more_pairs_than_the_table_has_are_refused() -> None:
    with pytest.raises(UserError, match="11 pairs"):
        mean_of([0.1] * 11)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.001, 0.3, HELD),
        (0.001, 0.005, HELD),  # small, but above 0
        (-0.3, -0.001, NOT),
        (-0.01, 0.01, NOT),
        (0.0, 0.004, NOT),
        (-0.02, 0.01, UNKNOWN),
        (-0.01, 0.02, UNKNOWN),
        (0.0, 0.2, UNKNOWN),
        (-0.2, 0.0, UNKNOWN),
    ],
)
def test_the_rule(low: float, high: float, said: str) -> None:
    assert verdict(Difference((low + high) / 2, low, high, 5)) == said


def test_what_was_not_measured_has_no_verdict() -> None:
    assert verdict(None) == MISSING


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=10))
def test_a_claim_and_its_opposite_never_both_hold(values: list[float]) -> None:
    said = {verdict(mean_of(values)), verdict(mean_of([-value for value in values]))}
    assert said != {HELD}
    assert said in ({HELD, NOT}, {NOT}, {UNKNOWN})
