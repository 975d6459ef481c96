"""Ranking: matching of chosen pairs equals matching of each alone; what is no candidate comes last."""

import gc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from albef.engine import Engine
from albef.evaluation import ranking
from albef.evaluation import stored_texts as stored_texts_module
from albef.evaluation.metrics import ranks
from albef.evaluation.ranking import (
    ON_CPU,
    AtOnce,
    Compared,
    Gallery,
    Reranked,
    candidates,
    match_scores,
    passes,
    rerank,
    similarities,
)
from albef.evaluation.stored_texts import stored_texts
from albef.model import layers
from albef.ranker import combined, others_last
from toy import CAPTIONS


def pictures(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8))


def log_odds(probabilities: np.ndarray) -> np.ndarray:
    return np.log(probabilities / (1 - probabilities))


def matched_one_by_one(engine: Engine, images: list[np.ndarray], texts: list[str]) -> np.ndarray:
    pairs = [(image, text) for image in images for text in texts]
    chances = engine.match([image for image, _ in pairs], [text for _, text in pairs], batch_size=1)
    return log_odds(chances.astype(np.float64)).reshape(len(images), len(texts))


def reranked(
    engine: Engine, images: list[np.ndarray], texts: list[str], top_k: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Similarities [N_i, N_t], and log-odds of both directions with -inf where there are none."""
    features = engine.encode_images(images), engine.encode_texts(texts)
    for_images, for_texts = rerank(engine, images, texts, *features, top_k)
    i2t = for_images.rows(slice(None), len(texts))
    return features[0] @ features[1].T, i2t, for_texts.rows(slice(None), len(images))


AT_ONCE = [AtOnce(32, 1024, False), AtOnce(2, 3, False), AtOnce(32, 1024, True), AtOnce(3, 9, True)]


@pytest.fixture(params=AT_ONCE, ids=["at once", "in chunks", "images together", "images together in chunks"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With images together, as on a GPU: texts are padded, and their states stay beside the model."""
    monkeypatch.setattr(ranking, "at_once_on", lambda device: request.param)
    monkeypatch.setattr(ranking, "BLOCK_BYTES", 1 if request.param.pairs < 10 else 2**20)
    if request.param.shared:
        monkeypatch.setattr(stored_texts_module, "fits", lambda engine, count: True)
        monkeypatch.setattr(layers, "packs", lambda device: False)


@pytest.mark.usefixtures("chunks")
def test_reranking_everything_is_matching_every_pair(engine: Engine) -> None:
    images, texts = pictures(5), CAPTIONS
    _, i2t, t2i = reranked(engine, images, texts, top_k=100)
    expected = matched_one_by_one(engine, images, texts)
    assert np.ptp(expected) > 0.1  # so that pairs that are mixed up would be noticed
    np.testing.assert_allclose(i2t, expected, atol=1e-4)
    np.testing.assert_allclose(t2i, expected.T, atol=1e-4)


@pytest.mark.usefixtures("chunks")
def test_reranking_scores_the_most_similar_of_each_query(engine: Engine) -> None:
    images, texts = pictures(5), CAPTIONS
    similarity, *both = reranked(engine, images, texts, top_k=2)
    for scores, similar, every in zip(
        both,
        (similarity, similarity.T),
        (matched := matched_one_by_one(engine, images, texts), matched.T),
        strict=True,
    ):
        for row in range(len(scores)):
            best = np.sort(np.argsort(-similar[row])[:2])
            assert np.flatnonzero(np.isfinite(scores[row])).tolist() == best.tolist()
            np.testing.assert_allclose(scores[row, best], every[row, best], atol=1e-4)


@pytest.mark.usefixtures("chunks")
def test_pairs_keep_their_order_and_may_repeat(engine: Engine) -> None:
    images, texts = pictures(5), CAPTIONS
    pairs = np.array([[4, 2], [0, 0], [4, 2], [1, 3], [0, 2]])
    expected = matched_one_by_one(engine, images, texts)[pairs[:, 0], pairs[:, 1]]
    np.testing.assert_allclose(match_scores(engine, images, texts, pairs), expected, atol=1e-4)
    assert match_scores(engine, images, texts, pairs[:0]).shape == (0,)


def test_each_picture_is_encoded_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    images, seen, encode = pictures(5), [], engine.model.encode_image
    monkeypatch.setattr(
        engine.model, "encode_image", lambda pixels: seen.append(len(pixels)) or encode(pixels)
    )
    pairs = np.array([[image, text] for text in range(4) for image in (0, 2, 4)])
    match_scores(engine, images, CAPTIONS, pairs)
    assert sum(seen) == 3


def held_bytes() -> int:
    """Of all tensors that are alive, each storage once; without weights that are laid out for oneDNN."""
    tensors = [thing for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor)]
    storages = [tensor.untyped_storage() for tensor in tensors if tensor.layout is torch.strided]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def test_images_of_few_pairs_share_a_pass_where_that_pays() -> None:
    groups = [np.array([3]), np.array([0, 4]), np.array([1, 2, 5, 6]), np.array([7])]
    together = list(passes(groups, AtOnce(32, 3, shared=True)))
    assert [rows for rows, _, _ in together] == [slice(0, 2), slice(2, 3), slice(3, 4)]
    assert [None if index is None else index.tolist() for _, index, _ in together] == [[0, 1, 1], None, None]
    assert [pairs.tolist() for _, _, pairs in together] == [[3, 0, 4], [1, 2, 5, 6], [7]]
    assert [rows for rows, _, _ in passes(groups, ON_CPU)] == [slice(row, row + 1) for row in range(4)]


def test_a_gpu_is_asked_for_its_room_and_a_cpu_stores_texts_in_a_file(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stored_texts(engine, CAPTIONS) as stored:
        assert isinstance(stored, stored_texts_module.TextsInFile)
    of_texts = 10 * engine.config.max_tokens * engine.config.text_width * 4
    for free, fits in ((4 * of_texts + 1, True), (4 * of_texts, False)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 0))
        on_gpu = SimpleNamespace(device=torch.device("cuda"), config=engine.config, bf16=False)
        assert stored_texts_module.fits(on_gpu, 10) == fits


def test_a_larger_gallery_holds_no_more_memory(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "at_once_on", lambda device: AtOnce(2, 128, shared=False))
    finish, held = engine.model.finish_match, list[int]()
    monkeypatch.setattr(
        engine.model, "finish_match", lambda *given: held.append(held_bytes()) or finish(*given)
    )
    most = []
    for count in (4, 16):
        match_scores(engine, pictures(count), CAPTIONS, np.array([[row, 0] for row in range(count)]))
        most.append(max(held))
        assert len(held) == count
        held.clear()
    small, large = most
    assert large <= small


def test_a_gallery_of_one(engine: Engine) -> None:
    images = pictures(1)
    _, i2t, t2i = reranked(engine, images, ["a fox"], top_k=64)
    assert i2t.shape == t2i.shape == (1, 1)
    assert np.isfinite(i2t).all()
    assert i2t[0, 0] == pytest.approx(log_odds(engine.match(images, ["a fox"]))[0], abs=1e-4)


def test_unscored_pairs_can_have_the_published_value() -> None:
    given = Reranked(np.array([[0, 2], [1, 2]]), np.array([[1, 2], [3, 4]], np.float32))
    assert given.rows(slice(1, 2), 4, unscored=-100.0).tolist() == [[-100, 3, 4, -100]]


def test_stored_states_are_those_before_a_picture(engine: Engine) -> None:
    (encoding,) = engine.text_encodings(CAPTIONS)
    rows = np.array([3, 1, 3])
    with stored_texts(engine, CAPTIONS) as stored:
        states, mask = stored.read(rows)
    longest = int(encoding.mask[rows].sum(1).max())
    assert torch.equal(mask, encoding.mask[rows, :longest])
    begun = engine.model.begin_match(encoding.tokens, encoding.mask)
    assert torch.equal(states, begun[rows, :longest])


def test_bf16_moves_scores_a_little(engine: Engine) -> None:
    images = pictures(3)
    half = Engine(engine.model, engine.tokenizer, bf16=True)
    pairs = np.argwhere(np.ones((3, len(CAPTIONS))))
    exact, rounded = (match_scores(one, images, CAPTIONS, pairs) for one in (engine, half))
    assert not np.array_equal(exact, rounded)
    np.testing.assert_allclose(rounded, exact, atol=0.05 * np.ptp(exact))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 9), st.integers(0, 10), st.integers(1, 200)
)
def test_ranks_in_blocks_are_those_of_whole_matrices(
    seed: int, images: int, texts: int, top_k: int, block_bytes: int
) -> None:
    rng = np.random.default_rng(seed)
    # Small whole numbers: sums are exact in any order, and there are ties.
    image_features, text_features = (
        rng.integers(-2, 3, (count, 4)).astype(np.float32) for count in (images, texts)
    )
    match = rng.integers(-3, 4, (images, texts)).astype(np.float32)
    of_text = rng.integers(images, size=texts).tolist()
    of_image = [[text for text, image in enumerate(of_text) if image == row] for row in range(images)]
    asking = [row for row in range(images) if of_image[row]]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "BLOCK_BYTES", block_bytes)
        patch.setattr(ranking, "match_scores", lambda engine, _, __, pairs: match[pairs[:, 0], pairs[:, 1]])
        both = rerank(None, range(images), range(texts), image_features, text_features, top_k)  # type: ignore[arg-type]
        i2t = Compared(Gallery(image_features, text_features), both[0], 0.5).found_at(of_image)
        t2i = Compared(Gallery(text_features, image_features), both[1], 0.5).found_at(of_text)

    similarity = image_features @ text_features.T
    for found, similar, matching, rows, truth in (
        (i2t, similarity, match, asking, [of_image[row] for row in asking]),
        (t2i, similarity.T, match.T, list(range(texts)), of_text),
    ):
        dense = np.where(candidates(similar, top_k), matching, -np.inf).astype(np.float32)
        for score, values in (("itc", similar), ("itm", dense), ("sum", combined(similar, dense, 0.5))):
            expected = ranks(others_last(values, similar)[rows], truth)
            assert found[score].tolist() == expected.tolist(), score


def test_a_kernel_is_chosen_for_the_tokens_of_a_pass(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are as many as its texts have on average: those of one image, but no more than fit into a pass."""
    chosen: list[int] = []

    def ready(model: object, part: str, tokens: int, bf16: bool) -> object:
        chosen.append(tokens)
        return model

    monkeypatch.setattr(ranking.kernels, "ready", ready)
    lengths = [len(engine.text_tokens([text])[0][0]) for text in CAPTIONS[:3]]
    every = np.array([(image, text) for image in range(2) for text in range(3)])
    match_scores(engine, pictures(2), CAPTIONS[:3], every)
    monkeypatch.setattr(ranking, "ON_CPU", AtOnce(8, 2, False))
    match_scores(engine, pictures(2), CAPTIONS[:3], every)
    assert chosen == [int(np.mean(lengths) * 3), int(np.mean(lengths) * 2)]


def test_similarities_are_cosines_of_all_pairs(engine: Engine) -> None:
    images, texts = pictures(2), CAPTIONS[:3]
    found = similarities(engine, images, texts)
    assert found.shape == (2, 3)
    one = engine.encode_images(images[1:])[0] @ engine.encode_texts([texts[2]])[0]
    assert found[1, 2] == pytest.approx(float(one), abs=1e-5)
