"""The engine with a model of another system: CLIP compares, and says what it cannot do."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy
import toy_clip
from albef.cli import main
from albef.config import UserError
from albef.engine import Engine
from albef.errors import Caution
from albef.model_directory import save_model
from albef.search.index import build_index
from albef.search.search import search

IMAGES = [np.full((12, 20, 3), shade, np.uint8) for shade in (0, 90, 200)]


@pytest.fixture(scope="module")
def engine() -> Engine:
    return toy_clip.engine()


def save(engine: Engine, folder: Path) -> Path:
    save_model(folder, engine.model, engine.tokenizer, "a card")
    return folder


def test_a_saved_model_is_the_same_when_loaded(engine: Engine, tmp_path: Path) -> None:
    again = Engine.load(save(engine, tmp_path / "model"), quiet=True)
    assert again.config == engine.config
    assert again.fingerprint == engine.fingerprint
    assert np.array_equal(again.encode_texts(toy.CAPTIONS), engine.encode_texts(toy.CAPTIONS))
    assert np.array_equal(again.encode_images(IMAGES), engine.encode_images(IMAGES))


def test_it_ranks_by_similarity(engine: Engine) -> None:
    similarity = engine.encode_images(IMAGES) @ engine.encode_texts(["a fox"])[0]
    hits = engine.rank("a fox", IMAGES)
    assert [hit.number for hit in hits] == np.argsort(-similarity).tolist()
    assert all(hit.match is None for hit in hits)
    scores = [hit.score for hit in hits]
    np.testing.assert_allclose(scores, np.sort(similarity)[::-1] / engine.temperature, rtol=1e-5)
    assert [hit.number for hit in engine.rank_texts(IMAGES[0], toy.CAPTIONS)] != []


def test_it_sees_the_centre_of_an_image(engine: Engine) -> None:
    wide = np.zeros((12, 36, 3), np.uint8)
    wide[:, 12:24] = 90
    centre = np.full((12, 12, 3), 90, np.uint8)
    of_wide, of_centre = engine.visual([wide, centre])
    torch.testing.assert_close(of_wide[:, 4:-4, 4:-4], of_centre[:, 4:-4, 4:-4])


@pytest.mark.parametrize(
    "ask",
    [
        lambda engine: engine.match([IMAGES[0]], ["a fox"]),
        lambda engine: engine.answer(IMAGES[0], "what is it?"),
        lambda engine: engine.ground(IMAGES[0], "a fox"),
        lambda engine: engine.entails(IMAGES[0], "a fox"),
        lambda engine: engine.judge(IMAGES[0], IMAGES[1], "two foxes"),
        lambda engine: engine.fill_mask("a [MASK]", IMAGES[0]),
    ],
    ids=["match", "answer", "ground", "entails", "judge", "fill_mask"],
)
def test_what_it_cannot_do_is_said(engine: Engine, ask: Callable[[Engine], object]) -> None:
    with pytest.raises(UserError, match=r"^This model was trained .*"):
        ask(engine)


@pytest.mark.parametrize("make", [toy.engine, toy_clip.engine], ids=["albef", "clip"])
def test_a_text_that_is_too_long_is_cut_and_this_is_said(make: Callable[[], Engine]) -> None:
    engine = make()
    long = "a fox and " * 30 + "a car"
    with pytest.warns(Caution, match=rf"^1 of 2 texts are longer than the {engine.config.max_tokens} tokens"):
        features = engine.encode_texts(["a fox", long])
    with pytest.warns(Caution, match="longer than"):
        engine.rank(long, IMAGES)
    ids = engine.prepare.words.encode(engine.prepare.cleaned(long))
    assert len(ids) == engine.config.max_tokens
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Caution)
        assert np.allclose(engine.encode_texts(["a fox and " * 40])[0], features[1], atol=1e-5)


def test_an_index_is_searched_by_features(engine: Engine, tmp_path: Path) -> None:
    for number, image in enumerate(IMAGES):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    again = Engine.load(save(engine, tmp_path / "model"), quiet=True)
    index = build_index(again, [tmp_path], tmp_path / "index")
    hits = search(index, again, "a fox")
    assert [hit.path.stem for hit in hits if hit.path] == [
        str(hit.number) for hit in engine.rank("a fox", IMAGES)
    ]


def test_the_command_line_says_what_it_cannot_do(
    engine: Engine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(IMAGES[0]).save(tmp_path / "image.png")
    folder = save(engine, tmp_path / "model")
    with pytest.raises(SystemExit) as left:
        main(["predict", "match", str(folder), str(tmp_path / "image.png"), "a fox"])
    assert left.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
