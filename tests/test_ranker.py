"""The ranker: one order for the engine, search and evaluation, whatever the size of the scores."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from albef.data.images import open_image
from albef.engine import Engine, loaded, sight
from albef.engine import engine as engine_module
from albef.engine.loaded import MAX_PAIRS
from albef.evaluation.ranking import candidates, rerank
from albef.ranker import best_first, combined, hits_of, others_last, probability
from albef.search.index import build_index
from albef.search.search import search

TEXTS = ["a fox on grass", "two red cars in the snow", "a small tree left of a large house", "a fox", "a car"]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    paths = [tmp_path / "pictures" / f"{number}.png" for number in range(7)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
    return paths


def test_large_log_odds_are_ordered_alike_everywhere(
    engine: Engine, files: list[Path], tmp_path: Path
) -> None:
    # So sure that probabilities in fp32 are all 1, and contrast says little.
    with torch.no_grad():
        pairs = [(file, text) for file in files for text in TEXTS]
        chances = engine.match([file for file, _ in pairs], [text for _, text in pairs]).astype(np.float64)
        spread = np.ptp(np.log(chances / (1 - chances)))
        engine.model.itm_head.weight.mul_(30 / spread)
        engine.model.itm_head.bias.copy_(torch.tensor([0.0, 60.0]))
        engine.model.temperature.fill_(0.5)
    index = build_index(engine, [tmp_path / "pictures"], tmp_path / "index")
    features = engine.encode_images(files), engine.encode_texts(TEXTS)
    for_images, for_texts = rerank(engine, files, TEXTS, *features, top_k=64)
    similarity = features[0] @ features[1].T
    t2i = combined(similarity.T, for_texts.rows(slice(None), len(files)), engine.temperature)
    i2t = combined(similarity, for_images.rows(slice(None), len(TEXTS)), engine.temperature)
    assert t2i.min() > 20
    for text, scores in zip(TEXTS, t2i, strict=True):
        ranked = engine.rank(text, files)
        assert [hit.number for hit in ranked] == best_first(scores, len(files)).tolist()
        np.testing.assert_allclose([hit.score for hit in ranked], np.sort(scores)[::-1], rtol=1e-5)
        found = search(index, engine, text)
        assert [hit.path for hit in found] == [files[hit.number] for hit in ranked]
        assert [hit.match for hit in found] == pytest.approx([hit.match for hit in ranked], rel=0.01)
    for file, scores in zip(files, i2t, strict=True):
        ranked = engine.rank_texts(file, TEXTS)
        assert [hit.number for hit in ranked] == best_first(scores, len(TEXTS)).tolist()
        np.testing.assert_allclose([hit.score for hit in ranked], np.sort(scores)[::-1], rtol=1e-5)


@pytest.mark.parametrize("reranked", [64, 2])
def test_everything_is_decoded_and_encoded_once(
    engine: Engine, files: list[Path], reranked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [hit.number for hit in engine.rank("a fox", files, k=3)]
    opened, seen, read = [], [], []
    monkeypatch.setattr(engine_module, "RERANKED", reranked)
    monkeypatch.setattr(
        sight,
        "open_image",
        lambda path, **options: opened.append(path) or open_image(path, **options),
    )
    engine.model.image_encoder.register_forward_hook(lambda _, given, __: seen.extend(given[0]))
    engine.model.text_encoder.register_forward_hook(lambda _, given, __: read.extend(given[0]))
    hits = engine.rank("a fox", files, k=3)
    assert len(hits) == 3
    if reranked == 64:
        assert [hit.number for hit in hits] == expected
    assert opened == files
    assert (len(seen), len(read)) == (len(files), 1)
    engine.rank_texts(files[0], TEXTS, k=3)
    assert (len(seen), len(read)) == (len(files) + 1, 1 + len(TEXTS))


def test_only_the_most_similar_are_matched_wherever_they_stand(
    engine: Engine, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = engine.rank("a fox", files, k=len(files))
    near = sorted(whole, key=lambda hit: -hit.similarity)[:3]
    monkeypatch.setattr(engine_module, "RERANKED", 3)
    monkeypatch.setattr(Engine.image_encodings, "__defaults__", (2, None))
    hits, expected = engine.rank("a fox", files, k=3), sorted(near, key=lambda hit: -hit.score)
    assert [hit.number for hit in hits] == [hit.number for hit in expected]
    np.testing.assert_allclose([hit[1:4] for hit in hits], [hit[1:4] for hit in expected], rtol=1e-4)


def test_a_model_without_matching_orders_by_contrast(engine: Engine, files: list[Path]) -> None:
    engine.model.heads = ("contrast",)
    hits = engine.rank("a fox", files)
    assert [hit.match for hit in hits] == [None] * len(files)
    assert [hit.score for hit in hits] == pytest.approx([hit.similarity / engine.temperature for hit in hits])
    assert [hit.similarity for hit in hits] == sorted((hit.similarity for hit in hits), reverse=True)
    assert engine.rank("a fox", []) == engine.rank_texts(files[0], []) == []


def test_probabilities_of_any_log_odds() -> None:
    log_odds = np.array([-1e4, -200.0, 0.0, 3.0, 200.0, 1e4, np.inf, -np.inf], np.float32)
    chances = probability(log_odds)
    assert chances.dtype == np.float32
    np.testing.assert_allclose(chances, [0, 0, 0.5, 1 / (1 + np.exp(-3)), 1, 1, 1, 0], atol=1e-30, rtol=1e-6)


def test_a_certain_match_is_no_overflow(engine: Engine, files: list[Path]) -> None:
    with torch.no_grad():
        engine.model.itm_head.bias.copy_(torch.tensor([0.0, -1000.0]))
    assert engine.match(files[:1], ["a fox"]).tolist() == [0.0]


def test_equals_stay_in_the_order_of_the_gallery() -> None:
    hits = hits_of(np.array([0.5, 0.1, 0.5, 0.5]), np.array([0, 2, 3]), np.zeros(3), 0.1, 2)
    assert [hit.number for hit in hits] == [0, 2]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 8), st.integers(0, 10))
def test_what_is_no_candidate_comes_last_in_the_order_of_similarity(
    seed: int, queries: int, columns: int, top_k: int
) -> None:
    rng = np.random.default_rng(seed)
    similarity = rng.uniform(-1, 1, (queries, columns)).astype(np.float32)
    chosen = candidates(similarity, top_k)
    assert (chosen.sum(1) == min(top_k, columns)).all()
    matching = np.where(chosen, rng.normal(0, 5, (queries, columns)), -np.inf).astype(np.float32)
    for scores in (matching, combined(similarity, matching, 0.07)):
        ordered = others_last(scores, similarity)
        for row in range(queries):
            expected = np.lexsort((-similarity[row], np.where(chosen[row], -scores[row], np.inf)))
            assert np.argsort(-ordered[row], kind="stable").tolist() == expected.tolist()
        np.testing.assert_array_equal(ordered[chosen], scores[chosen])


def test_combining_adds_logits() -> None:
    both = combined(np.array([0.7, 0.1]), np.array([1.0, -np.inf]), temperature=0.1)
    np.testing.assert_allclose(both, [8.0, -np.inf])


def test_the_memory_of_one_pass_is_bounded(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert engine.pairs_at_once == MAX_PAIRS
    config = engine.config
    one_pair = (config.grid**2 + 1) * 2 * config.text_width * 4 * config.fusion_depth
    monkeypatch.setattr(loaded, "MEMORY_BYTES", 10 * one_pair + 1)
    assert Engine(engine.model, engine.tokenizer, quiet=True).pairs_at_once == 10
