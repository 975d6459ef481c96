"""What the engine is given: obvious slips are told in words, every precision of the weights is computed in."""

import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import toy
from albef.config import UserError
from albef.engine import Engine
from albef.evaluation.ranking import match_scores
from albef.model.albef import ALBEF
from toy import CAPTIONS

HEADS = ("contrast", "itm", "mlm", "answer", "entailment")


def images(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 16, 20, 3), dtype=np.uint8))


@pytest.fixture
def engine() -> Engine:
    torch.manual_seed(0)
    model = ALBEF(toy.ENGINE_MODEL, heads=HEADS)
    return Engine(model, toy.engine().tokenizer)


ONE = images(1)[0]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda e: e.encode_texts("a fox"), "texts must be a list, but 'a fox' was given"),
        (lambda e: e.encode_texts(["a fox", Path("b")]), "texts must be strings, but number 1 is 'b'"),
        (lambda e: e.encode_texts(None), "texts must be a list, but a NoneType"),
        (lambda e: e.encode_images("a.png"), r"images must be a list, but 'a\.png' was given"),
        (lambda e: e.encode_images(Path("a.png")), r"images must be a list, but 'a\.png' was given"),
        (lambda e: e.encode_images(b"\x89PNG"), "images must be a list, but a bytes"),
        (lambda e: e.encode_images(ONE), r"images must be a list, but an array \[16, 20, 3\] of uint8"),
        (lambda e: e.match(ONE, ["a fox"]), "images must be a list"),
        (lambda e: e.match([ONE], "a fox"), "texts must be a list"),
        (lambda e: e.rank("a fox", "a.png"), "the gallery must be a list"),
        (lambda e: e.rank("a fox", ONE), "the gallery must be a list"),
        (lambda e: e.rank(["a fox"], [ONE]), "query must be a string, but a list"),
        (lambda e: e.rank_texts(ONE, "a fox"), "the gallery must be a list"),
        (lambda e: e.answer(ONE, "what is it?", candidates="fox"), "candidates must be a list"),
        (lambda e: e.answer(ONE, ["what"]), "question must be a string"),
        (lambda e: e.entails(ONE, ["a fox"]), "sentence must be a string"),
        (lambda e: e.ground(ONE, ["a fox"]), "phrase must be a string"),
        (lambda e: e.fill_mask(["a [MASK]"], ONE), "text must be a string"),
        (lambda e: e.rank("a fox", [ONE], k=-3), "k is -3"),
        (lambda e: e.rank_texts(ONE, ["a fox"], k=0), "k is 0"),
        (lambda e: e.answer(ONE, "what is it?", ["fox"], k=0), "k is 0"),
        (lambda e: e.fill_mask("a [MASK]", ONE, k=0), "k is 0"),
        (lambda e: e.rank("?!", [ONE]), "query is empty: '\\?!' has no words"),
        (lambda e: e.rank("雪", [ONE]), "query '雪' means nothing to the model"),
        (lambda e: e.match([ONE, ONE], ["a fox", "..."]), "text 1 is empty"),
        (lambda e: e.entails(ONE, '""'), "sentence is empty"),
        (lambda e: e.ground(ONE, "(#)"), "phrase is empty"),
        (lambda e: e.answer(ONE, " ? ", ["fox"]), "question is empty"),
    ],
)
def test_slips_are_told_in_words(engine: Engine, call: Callable[[Engine], object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(engine)


def test_texts_without_words_are_warned_of(engine: Engine) -> None:
    with pytest.warns(UserWarning, match=r"1 of 2 texts have no words, such as '\.\.\.'"):
        assert len(engine.encode_texts(["a fox", "..."])) == 2
    with pytest.warns(UserWarning, match="1 of 2 texts"):
        assert len(engine.rank_texts(ONE, ["a fox", "-"])) == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        engine.encode_texts([])


def test_anything_that_can_be_gone_through_is_a_list(engine: Engine) -> None:
    three = images(3)
    expected = engine.encode_images(three)
    for given in (
        tuple(three),
        np.stack(three),
        iter(three),
        dict.fromkeys(range(3), 0) and (x for x in three),
    ):
        np.testing.assert_array_equal(engine.encode_images(given), expected)
    np.testing.assert_array_equal(engine.encode_texts(np.array(CAPTIONS)), engine.encode_texts(CAPTIONS))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_it_computes_in_the_precision_of_its_weights(engine: Engine, dtype: torch.dtype) -> None:
    given = images(3)

    def everything(engine: Engine) -> list[np.ndarray]:
        pairs = np.array([[0, 0], [1, 1], [2, 0]])
        return [
            engine.encode_images(given),
            engine.encode_texts(CAPTIONS),
            engine.match(given, CAPTIONS[:3]),
            match_scores(engine, given, CAPTIONS, pairs),
            np.array([hit.score for hit in engine.rank("a fox", given)]),
            np.array([hit.score for hit in engine.rank_texts(given[0], CAPTIONS)]),
            np.array([chance for _, chance in engine.answer(given[0], "what is it?", ["fox", "car"])]),
            np.array([chance for _, chance in engine.answer(given[0], "what is it?", [], k=2)]),
            np.array(list(engine.entails(given[0], "a fox").values())),
            np.array([chance for _, chance in engine.fill_mask("a [MASK]", given[0])[0]]),
            engine.ground(given[0], "a fox").map,
        ]

    expected = everything(engine)
    engine.model.to(dtype)
    seen = []
    engine.model.image_encoder.register_forward_hook(lambda _, __, tokens: seen.append(tokens.dtype))
    found = everything(engine)
    assert set(seen) == {dtype}
    close = 1e-4 if dtype == torch.float64 else 0.2
    for before, after in zip(expected[:-1], found[:-1], strict=True):
        assert after.dtype == before.dtype
        np.testing.assert_allclose(after, before, atol=close, rtol=close)
    assert np.isfinite(found[-1]).all()


def test_what_it_gives_can_be_trained_on(engine: Engine) -> None:
    (encoding,) = engine.image_encodings(images(2))
    probe = torch.nn.Linear(encoding.feature.shape[1], 1)
    probe(encoding.feature).sum().backward()
    assert probe.weight.grad is not None


def test_threads_share_an_engine(engine: Engine) -> None:
    given = images(4)
    pairs = np.argwhere(np.ones((4, len(CAPTIONS))))
    asks: list[Callable[[], np.ndarray]] = [
        lambda: match_scores(engine, given, CAPTIONS, pairs),
        lambda: engine.match(given, CAPTIONS),
        lambda: engine.ground(given[0], "a fox").map,
        lambda: np.array([hit.score for hit in engine.rank("a fox", given)]),
    ]
    failures: list[Exception] = []

    def work(ask: Callable[[], np.ndarray], expected: np.ndarray) -> None:
        try:
            for _ in range(15):
                np.testing.assert_allclose(ask(), expected, atol=1e-4)
        except Exception as error:  # told by the test's own thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(ask, ask())) for ask in asks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
