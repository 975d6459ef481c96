"""The equations of the systems on region features, by their properties."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from albef.peers import region_objectives as equations

ONE = torch.tensor(1.0)
sizes = st.integers(1, 4)


def states(words: int, regions: int, padding: int) -> tuple[torch.Tensor, ...]:
    """Random words and regions of one pair, each followed by padding, and their masks."""
    generator = torch.Generator().manual_seed(words + 7 * regions)
    found = [torch.randn(1, real + padding, 6, generator=generator) for real in (words, regions)]
    masks = [torch.arange(real + padding)[None] < real for real in (words, regions)]
    return *found, *masks


@settings(max_examples=20)
@given(sizes, sizes, st.integers(0, 2))
def test_a_plan_moves_all_of_every_word_and_nothing_at_padding(
    words: int, regions: int, padding: int
) -> None:
    *tensors, word_mask, region_mask = states(words, regions, padding)
    cost = equations.transport_cost(*tensors, word_mask, region_mask)
    plan = equations.transport_plan(cost, word_mask, region_mask)
    assert not plan[~(region_mask[:, :, None] & word_mask[:, None])].any()
    torch.testing.assert_close(plan.sum(1)[word_mask], torch.full((words,), 1 / words))
    padded = equations.transport_distance(cost, plan)
    tight = [tensor[:, :size] for tensor, size in zip(tensors, (words, regions), strict=True)]
    tight_masks = word_mask[:, :words], region_mask[:, :regions]
    small = equations.transport_cost(*tight, *tight_masks)
    alone = equations.transport_distance(small, equations.transport_plan(small, *tight_masks))
    torch.testing.assert_close(padded, alone)


def test_words_go_to_the_regions_that_are_like_them() -> None:
    words, mask = torch.eye(3)[None], torch.ones(1, 3, dtype=torch.bool)
    regions = words[:, [2, 0, 1]]
    cost = equations.transport_cost(words, regions, mask, mask)
    plan = equations.transport_plan(cost, mask, mask)
    torch.testing.assert_close(plan[0], torch.eye(3)[[2, 0, 1]] / 3, rtol=0, atol=1e-6)
    assert equations.transport_distance(cost, plan).item() == pytest.approx(0, abs=1e-5)


def test_matched_pairs_are_drawn_together_and_others_pushed_apart() -> None:
    distance = torch.tensor([0.5, 2.0, 1.0], requires_grad=True)
    loss = equations.alignment_loss(distance, torch.tensor([1, 0, 1]), torch.tensor(3.0))
    assert loss.item() == pytest.approx((0.5 - 2.0 + 1.0) / 3)
    loss.backward()
    assert distance.grad is not None
    assert distance.grad.sign().tolist() == [1, -1, 1]


def test_answers_add_up_and_questions_are_averaged() -> None:
    logits, targets = torch.randn(2, 5), torch.rand(2, 5)
    loss = equations.listed_answer_loss(logits, targets, torch.tensor(2.0))
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, targets) * 5)


def test_features_are_compared_by_the_mean_of_their_numbers() -> None:
    predicted, features = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [0.0, 4.0]])
    loss = equations.region_feature_loss(predicted, features, torch.tensor(2.0))
    assert loss.item() == pytest.approx(((1 + 4) / 2 + 16 / 2) / 2)
    nothing = equations.region_feature_loss(predicted[:0], features[:0], torch.tensor(0.0))
    assert nothing.item() == 0


def test_the_background_is_no_object() -> None:
    soft = torch.tensor([[0.9, 0.04, 0.06], [0.1, 0.5, 0.4]])
    assert equations.likeliest_objects(soft).tolist() == [2, 1]


def test_the_divergence_is_divided_by_the_number_of_classes() -> None:
    soft = torch.tensor([[0.5, 0.5, 0.0, 0.0]])
    loss = equations.region_class_divergence(torch.zeros(1, 4), soft, ONE)
    assert loss.item() == pytest.approx(math.log(2) / 4)


def test_a_pair_is_to_score_higher_than_its_negatives_by_the_margin() -> None:
    matched = torch.tensor([0.0])
    scores = torch.logit(torch.tensor([[0.2, 0.4, 0.9]]))
    loss = equations.ranking_loss(matched, scores, torch.ones(1, 3), 0.2, torch.tensor(3.0))
    assert loss.item() == pytest.approx((0 + 0.1 + 0.6) / 3)
    loss = equations.ranking_loss(matched, scores, torch.tensor([[1.0, 1.0, 0.0]]), 0.2, torch.tensor(2.0))
    assert loss.item() == pytest.approx((0 + 0.1) / 2)


@given(st.lists(st.floats(-5, 5), min_size=3, max_size=8, unique=True))
def test_the_hardest_are_those_with_the_greatest_scores(scores: list[float]) -> None:
    found = equations.hardest(torch.tensor([scores], dtype=torch.float64), 2)[0].tolist()
    assert found == sorted(sorted(range(len(scores)), key=lambda place: scores[place])[-2:])
