"""What images and captions have in common: the bound by hand, its limit, and bits that are counted."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mutual_information import bound, bound_of, counted, loss, pairs_of, shown

import toy
from albef.data.pictograms.captions import Claim, Mention
from albef.data.pictograms.scenes import Scenes


def test_pairs_that_are_told_with_certainty_show_log_k() -> None:
    eye = 100 * torch.eye(8)
    assert bound(eye, eye, 8) == pytest.approx(3)
    assert bound(eye, eye, 4) == pytest.approx(2)
    assert bound_of(eye.view(1, 8, 8)) == pytest.approx(3)


def test_a_guess_shows_nothing() -> None:
    assert bound(torch.zeros(6, 3), torch.zeros(6, 3), 3) == pytest.approx(0, abs=1e-6)


def test_the_bound_by_hand() -> None:
    """Of two pairs, each is told with a chance of 3 in 4."""
    logits = torch.tensor([[[math.log(3), 0.0], [0.0, math.log(3)]]])
    assert bound_of(logits) == pytest.approx(1 + math.log2(3 / 4))
    assert bound(logits[0], torch.eye(2), 2) == pytest.approx(1 + math.log2(3 / 4))


@given(st.integers(2, 9), st.integers(1, 4), st.integers(0, 99))
def test_no_bound_is_above_log_k(size: int, blocks: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    images, texts = torch.randn(2, size * blocks + 1, 3, generator=generator)
    each = [images[size * n : size * n + size] @ texts[size * n : size * n + size].T for n in range(blocks)]
    found = bound(images, texts, size)
    assert found <= math.log2(size)
    assert found == pytest.approx(bound_of(torch.stack(each)), abs=1e-4)  # the odd pair is in no block


def test_rows_in_parts_have_the_loss_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = torch.randn(2, 7, 3, generator=torch.Generator().manual_seed(1))
    whole = loss(rows, columns)
    monkeypatch.setattr("mutual_information.ROWS", 3)
    assert loss(rows, columns) == pytest.approx(whole)


def test_bits_are_counted_by_the_scenes_that_a_claim_is_true_of() -> None:
    source = Scenes("test", 1, 8, twin_share=0.0)
    scenes = [source.scene(index) for index in range(400)]
    noun = scenes[0].things[0].noun
    true = sum(sum(thing.noun == noun for thing in scene.things) == 1 for scene in scenes)
    assert 0 < true < 400
    once = Claim((Mention(noun),))
    assert counted([once], scenes) == pytest.approx(math.log2(401 / (true + 1)))
    never = Claim((Mention(noun, count=9),))
    assert counted([once, never], scenes) == pytest.approx((math.log2(401 / (true + 1)) + math.log2(401)) / 2)


def test_a_model_without_itm_has_the_bound_of_itc_alone() -> None:
    items, others = (pairs_of("test", seed, 6, 8, toy.MODEL.image_size) for seed in (1, 2))
    found = shown(toy.engine("contrast", "itm"), items, others)
    assert set(found) == {"itc/6", "sum/6"}
    assert all(value <= math.log2(6) for value in found.values())
    assert set(shown(toy.engine("contrast"), items, others)) == {"itc/6"}
