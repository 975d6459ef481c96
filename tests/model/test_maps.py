"""Maps of scores and of words: against finite differences, and what must not change them."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from albef.model.albef import ALBEF
from albef.model.maps import SCORES, Score, box_of_map, scaled, score_maps
from toy_maps import CONFIG, toy_model, toy_pairs

Pairs = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
HEADS, WIDTH = CONFIG.image_heads, CONFIG.image_width // CONFIG.image_heads


@pytest.fixture(params=[False, True], ids=["all tokens", "placed patches"])
def model(request: pytest.FixtureRequest) -> ALBEF:
    return toy_model(fuse_placed_patches=request.param, image_depth=2)


@pytest.fixture
def pairs() -> Pairs:
    return toy_pairs()


def words_of(*places: list[int], length: int = 5) -> torch.Tensor:
    """The same words in both texts."""
    words = torch.zeros(2, len(places), length, dtype=torch.bool)
    for number, of_word in enumerate(places):
        words[:, number, of_word] = True
    return words


def score_of(
    model: ALBEF, score: Score, pixels: torch.Tensor, ids: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    image, text = model.encode_image(pixels), model.encode_text(ids, mask)
    if score == "itc":
        return (image.feature * text.feature).sum(1) / model.temperature
    no, yes = model.match(text.tokens, mask, model.image_memory(image)).unbind(1)
    return yes - no


def attending_more(
    model: ALBEF, block: int, head: int, place: int, step: float, compute: Callable[[], torch.Tensor]
) -> torch.Tensor:
    """What is computed where [CLS] attends by `step` more to one place, in one head of one block."""
    attention = model.image_encoder.blocks[block].attention

    def changed(module: torch.nn.Module, given: tuple[torch.Tensor], out: torch.Tensor) -> torch.Tensor:
        value = attention.qkv(given[0]).unflatten(-1, (3, HEADS, WIDTH))[:, place, 2, head]
        out = out.clone()
        out[:, 0] += step * value @ attention.out.weight[:, head * WIDTH : (head + 1) * WIDTH].T
        return out

    hook = attention.register_forward_hook(changed)
    result = compute()
    hook.remove()
    return result


@pytest.mark.parametrize("score", SCORES)
def test_equal_the_definition_by_finite_differences(model: ALBEF, pairs: Pairs, score: Score) -> None:
    pixels, ids, mask = pairs
    words = words_of([1], [2])
    found = score_maps(model, pixels, ids, mask, words, score)
    assert found.whole.shape == (2, 3, 3)
    assert found.words.shape == (2, 2, 3, 3)
    _, rows = model.image_encoder.watched(pixels)

    def scores() -> torch.Tensor:
        whole = score_of(model, score, pixels, ids, mask)
        without = [score_of(model, score, pixels, ids, mask & ~words[:, word]) for word in range(2)]
        return torch.stack([whole, *(whole - one for one in without)], 1)

    expected = np.zeros((2, 3, 3, 3))
    for block, row in enumerate(rows):
        for head in range(HEADS):
            for patch in range(9):
                more, less = (
                    attending_more(model, block, head, patch + 1, step, scores) for step in (1e-5, -1e-5)
                )
                part = row[:, head, 0, patch + 1, None] * ((more - less) / 2e-5).clamp(min=0) / HEADS
                expected[:, :, patch // 3, patch % 3] += part.numpy()
    assert expected[:, 0].max() > 1e-3
    assert expected[:, 1:].max() > 1e-3
    np.testing.assert_allclose(found.whole, expected[:, 0], rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(found.words, expected[:, 1:], rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("score", SCORES)
def test_the_image_is_encoded_once_and_a_word_costs_one_backward_pass(
    pairs: Pairs, score: Score, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, encoded, passes = toy_model(), [], []
    blocks, gradient = model.image_encoder.blocks, torch.autograd.grad
    blocks[0].attention.qkv.register_forward_hook(lambda *_: encoded.append(1))
    monkeypatch.setattr(
        torch.autograd,
        "grad",
        lambda outputs, inputs, *rest, **options: (
            passes.append(len(inputs) == len(blocks) and inputs[0].shape[2] == 1)
            or gradient(outputs, inputs, *rest, **options)
        ),
    )
    score_maps(model, *pairs, words_of([1], [2], [3]), score)
    assert len(encoded) == 1
    assert sum(passes) == 4  # through the image encoder: of the text, and of each word
    assert len(passes) == 4 + (score == "itm")  # and one through fusion, of all texts at once


@pytest.mark.parametrize("score", SCORES)
def test_pairs_do_not_see_each_other(model: ALBEF, pairs: Pairs, score: Score) -> None:
    pixels, ids, mask = pairs
    found = score_maps(model, pixels, ids, mask, words_of([1], [2]), score)
    alone = score_maps(model, pixels[1:], ids[1:, :3], mask[1:, :3], words_of([1], [2], length=3)[1:], score)
    np.testing.assert_allclose(found.whole[1:], alone.whole, rtol=1e-5, atol=1e-10)
    np.testing.assert_allclose(found.words[1:], alone.words, rtol=1e-5, atol=1e-10)
    assert (found.whole >= 0).all()
    assert (found.words >= 0).all()


@pytest.mark.parametrize("score", SCORES)
def test_a_word_of_no_token_has_an_empty_map_and_no_words_are_no_maps(
    model: ALBEF, pairs: Pairs, score: Score
) -> None:
    found = score_maps(model, *pairs, words_of([], [1]), score)
    np.testing.assert_allclose(found.words[:, 0], 0, atol=1e-10)
    assert found.words[:, 1].any()
    assert score_maps(model, *pairs, words_of(), score).words.shape == (2, 0, 3, 3)


def test_what_is_masked_within_a_text_says_nothing(model: ALBEF, pairs: Pairs) -> None:
    _, ids, mask = pairs
    holes = mask & ~words_of([1])[:, 0]
    other = ids.clone()
    other[:, 1] = (ids[:, 1] + 1) % 20
    before, after = model.encode_text(ids, holes), model.encode_text(other, holes)
    torch.testing.assert_close(before.feature, after.feature)
    assert not torch.allclose(model.encode_text(ids, mask).feature, before.feature)
    # Positions stay: what follows the gap is not moved into it.
    closed = model.encode_text(ids[:1, [0, 2, 3, 4]], holes[:1, [0, 2, 3, 4]])
    assert not torch.allclose(closed.feature, before.feature[:1])


def test_watching_changes_nothing(model: ALBEF, pairs: Pairs) -> None:
    tokens, rows = model.image_encoder.watched(pairs[0])
    torch.testing.assert_close(tokens, model.image_encoder(pairs[0]))
    assert len(rows) == 2
    for row in rows:
        assert row.shape == (2, HEADS, 1, 10)
        torch.testing.assert_close(row.sum(-1), torch.ones(2, HEADS, 1).double())


@pytest.mark.parametrize("score", SCORES)
def test_no_gradients_are_left_behind(pairs: Pairs, score: Score) -> None:
    model = toy_model().requires_grad_()
    score_maps(model, *pairs, words_of([1]), score)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_maps_are_on_one_scale() -> None:
    maps = np.array([[[1.0, 4.0]], [[2.0, 0.0]]])
    np.testing.assert_allclose(scaled(maps, 0.5), [[[0.125, 0.5]], [[0.25, 0.0]]])
    assert not scaled(np.zeros((2, 2)), 0.5).any()
    assert scaled(np.zeros((0, 2, 2)), 0.5).shape == (0, 2, 2)


def test_the_box_is_around_the_connected_part() -> None:
    map_ = np.array([[0.0, 0.9, 0.0, 0.6], [0.0, 1.0, 0.5, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert box_of_map(map_) == (1.0, 0.0, 2.0, 2.0)
