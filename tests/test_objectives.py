"""Each equation against a plain restatement of it, and the corners where published code breaks (docs/published.md)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from albef import objectives

sizes = st.integers(1, 6)
seeds = st.integers(0, 10_000)


def logits_of(seed: int, rows: int, columns: int, scale: float = 3.0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale


@given(seeds, sizes, sizes)
def test_soft_targets_are_probabilities_between_teacher_and_truth(seed: int, rows: int, columns: int) -> None:
    teacher = logits_of(seed, rows, columns)
    positive = torch.zeros(rows, columns, dtype=torch.bool)
    positive[:, 0] = True
    hard = objectives.hard_targets(positive)
    soft = objectives.soft_targets(teacher, hard, 0.4)
    torch.testing.assert_close(soft.sum(1), torch.ones(rows))
    torch.testing.assert_close(soft[:, 0], 0.4 * teacher.softmax(1)[:, 0] + 0.6)
    assert torch.equal(objectives.soft_targets(teacher, hard, 0.0), hard)


def test_hard_targets_share_the_mass_among_all_captions_of_a_picture() -> None:
    positive = torch.tensor([[True, False, True, False], [False, True, False, False]])
    assert objectives.hard_targets(positive).tolist() == [[0.5, 0, 0.5, 0], [0, 1, 0, 0]]


def test_itc_loss_is_the_mean_of_both_directions() -> None:
    i2t, t2i = logits_of(0, 4, 7), logits_of(1, 4, 7)
    truth = torch.arange(4)
    hard = torch.eye(7)[:4]
    expected = torch.nn.functional.cross_entropy(i2t, truth) + torch.nn.functional.cross_entropy(t2i, truth)
    loss = objectives.itc_loss(i2t, t2i, hard, hard, torch.tensor(4.0))
    torch.testing.assert_close(loss, expected / 2)


def test_excluded_candidates_get_no_probability_and_no_nan() -> None:
    features = torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    excluded = torch.tensor([[False, True, True]] * 3)
    logits = objectives.similarity(features, [features], torch.tensor([0.001]), excluded)
    loss = objectives.cross_entropy(logits, torch.tensor([[1.0, 0, 0]] * 3))
    assert loss.tolist() == [0, 0, 0]


@given(seeds, st.integers(2, 6), st.floats(0, 1))
def test_negatives_are_never_forbidden_ones(seed: int, rows: int, hardness: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    allowed = torch.rand(rows, rows, generator=generator) < 0.5
    logits = logits_of(seed, rows, rows, scale=500.0)  # a margin at which published weights underflow to 0
    chances = objectives.negative_probabilities(logits, allowed, hardness)
    torch.testing.assert_close(chances.sum(1), torch.ones(rows))
    drawn = objectives.sample_negatives(chances, generator)
    usable = allowed.any(1)
    assert allowed[torch.arange(rows), drawn][usable].all()


def test_negatives_are_drawn_as_multinomial_draws_them() -> None:
    chances = logits_of(0, 50, 7).softmax(1)
    ours, theirs = (torch.Generator().manual_seed(3) for _ in range(2))
    expected = torch.multinomial(chances, 1, generator=theirs).squeeze(1)
    assert objectives.sample_negatives(chances, ours).tolist() == expected.tolist()


def test_hardness_0_draws_evenly_and_1_by_similarity() -> None:
    logits, allowed = torch.tensor([[5.0, 1.0, 2.0]]), torch.tensor([[False, True, True]])
    even = objectives.negative_probabilities(logits, allowed, 0.0)
    assert even.tolist() == [[0, 0.5, 0.5]]
    hard = objectives.negative_probabilities(logits, allowed, 1.0)
    torch.testing.assert_close(hard[0, 1:], torch.tensor([1.0, 2.0]).softmax(0))


def test_itm_loss_leaves_out_pairs_of_weight_0() -> None:
    logits, matched = logits_of(3, 4, 2), torch.tensor([1, 0, 0, 1])
    weighted = objectives.itm_loss(logits, matched, torch.tensor([1.0, 1, 0, 0]), torch.tensor(2.0))
    torch.testing.assert_close(weighted, torch.nn.functional.cross_entropy(logits[:2], matched[:2]))


def test_mlm_loss_mixes_truth_and_teacher() -> None:
    logits, teacher, labels = logits_of(4, 5, 9), logits_of(5, 5, 9), torch.tensor([0, 3, 8, 1, 1])
    count = torch.tensor(5.0)
    hard = torch.nn.functional.cross_entropy(logits, labels)
    soft = torch.nn.functional.cross_entropy(logits, teacher.softmax(1))
    torch.testing.assert_close(
        objectives.mlm_loss(logits, teacher, labels, 0.4, count), 0.6 * hard + 0.4 * soft
    )
    torch.testing.assert_close(objectives.mlm_loss(logits, None, labels, 0.4, count), hard)


def test_mlm_loss_of_no_masked_token_is_0() -> None:
    nothing, labels = torch.empty(0, 9, requires_grad=True), torch.empty(0, dtype=torch.long)
    loss = objectives.mlm_loss(nothing, None, labels, 0.0, torch.tensor(0.0))
    loss.backward()
    assert loss.item() == 0
    assert objectives.mlm_bound(nothing.detach(), labels).item() == 0


def test_bounds_are_0_for_a_guess_and_log_k_for_certainty() -> None:
    hard = torch.eye(8)
    torch.testing.assert_close(objectives.infonce_bound(torch.zeros(8, 8), hard), torch.tensor(0.0))
    torch.testing.assert_close(objectives.infonce_bound(hard * 100, hard), torch.tensor(math.log(8)))
    lowest = torch.finfo(torch.float32).min
    half = torch.where(torch.arange(8) < 4, 0.0, lowest).expand(4, 8)
    torch.testing.assert_close(objectives.infonce_bound(half, hard[:4]), torch.tensor(0.0))
    labels = torch.arange(8)
    torch.testing.assert_close(objectives.mlm_bound(hard * 100, labels), torch.tensor(math.log(8)))


def test_disagreement_counts_rows_whose_best_candidate_is_another() -> None:
    teacher = torch.tensor([[1.0, 2.0], [0.0, 3.0]])
    assert objectives.disagreement(teacher, torch.eye(2).bool()).item() == pytest.approx(0.5)


@given(seeds, sizes, st.integers(0, 3))
def test_contrastive_loss_is_itc_without_teacher_and_its_parts_add_up(seed: int, rows: int, cut: int) -> None:
    logits, count = logits_of(seed, rows, rows), torch.tensor(float(rows))
    every, hard = torch.arange(rows), torch.eye(rows)
    whole = objectives.contrastive_loss(logits, logits.T, every, count)
    torch.testing.assert_close(whole, objectives.itc_loss(logits, logits.T, hard, hard, count))
    parts = [
        objectives.contrastive_loss(logits[part], logits.T[part], every[part], count)
        for part in (slice(0, cut), slice(cut, None))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_the_bound_of_masked_words_is_a_mean_over_them() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.5, 0.5, 3.0]])
    labels = torch.tensor([0, 1])
    chances = logits.softmax(1)[torch.arange(2), labels].log()
    torch.testing.assert_close(objectives.mlm_bound(logits, labels), math.log(3) + chances.mean())
