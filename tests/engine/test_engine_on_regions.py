"""An engine whose model sees regions: it finds them by the image's name, and says so if there are none."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toy
import toy_regions
from albef.config import DataConfig, UserError
from albef.data.images import BadImage
from albef.engine import Engine
from albef.model_config import SystemName
from albef.ranker import best_first
from albef.systems import check_system
from toy_regions import SYSTEM_NAMES


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return toy_regions.write_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("system", SYSTEM_NAMES)
def test_every_image_of_a_gallery_is_matched(system: SystemName, images: list[Path]) -> None:
    engine, text = toy_regions.engine(system), "a fox beside a car"
    chances = engine.match(images, [text] * len(images))
    found = engine.rank(text, images, k=3, batch_size=3)
    assert [hit.number for hit in found] == best_first(chances, 3).tolist()
    assert all(math.isnan(hit.similarity) for hit in found)
    assert [1 / (1 + math.exp(-hit.score)) for hit in found] == pytest.approx(
        sorted(chances)[:-4:-1], rel=1e-4
    )
    texts = toy_regions.CAPTIONS
    found = engine.rank_texts(images[1], texts, k=2, batch_size=5)
    assert [hit.number for hit in found] == best_first(
        engine.match([images[1]] * len(texts), texts), 2
    ).tolist()


@pytest.mark.parametrize("system", SYSTEM_NAMES)
def test_answers_come_from_the_models_list(system: SystemName, images: list[Path]) -> None:
    engine = toy_regions.engine(system, "answers")
    question = "what is beside the fox?"
    whole = engine.answer(images[1], question, k=8)
    assert sorted(answer for answer, _ in whole) == sorted(toy_regions.NOUNS)
    assert [chance for _, chance in whole] == sorted((chance for _, chance in whole), reverse=True)
    some = engine.answer(images[1], question, ["The Car", "moon"])
    assert some == [one for one in whole if one[0] in ("car", "moon")]
    with pytest.raises(UserError, match="chooses among 8 answers, and 'a ship' is none of them"):
        engine.answer(images[1], question, ["car", "a ship"])


@pytest.mark.parametrize(
    ("system", "head"), [("lxmert", "nlvr"), ("uniter", "paired_attention"), ("oscar", "nlvr")]
)
def test_two_images_are_judged(system: SystemName, head: str, images: list[Path]) -> None:
    engine = toy_regions.engine(system, head)
    statement = "one is a fox"
    assert 0 < engine.judge(images[1], images[2], statement) < 1
    assert engine.judge(images[1], images[2], statement) != engine.judge(images[2], images[1], statement)


def test_a_sentence_is_judged(images: list[Path]) -> None:
    chances = toy_regions.engine("uniter", "entailment").entails(images[0], "this is a fox")
    assert sum(chances.values()) == pytest.approx(1)


@pytest.mark.parametrize("system", SYSTEM_NAMES)
def test_words_are_filled_in(system: SystemName, images: list[Path]) -> None:
    (found,) = toy_regions.engine(system).fill_mask("a [MASK] beside a car", images[3])
    assert len(found) == 5


def test_what_has_no_regions_is_named(tmp_path: Path) -> None:
    engine = toy_regions.engine("uniter")
    Image.new("RGB", (8, 8)).save(tmp_path / "mine.png")
    with pytest.raises(BadImage, match=r"mine\.png: has no regions"):
        engine.match([tmp_path / "mine.png"], ["a fox"])
    with pytest.raises(BadImage, match="found by the file's name; give a path"):
        engine.match([(tmp_path / "mine.png").read_bytes()], ["a fox"])
    with pytest.raises(BadImage, match="has no file"):
        engine.match([np.zeros((8, 8, 3), np.uint8)], ["a fox"])


def test_features_are_not_compared(images: list[Path]) -> None:
    engine = toy_regions.engine("oscar")
    with pytest.raises(UserError, match="has no features to compare images with texts"):
        engine.encode_images(images)
    with pytest.raises(UserError, match="This model was trained for mlm, pollution"):
        engine.ground(images[0], "a fox")


def test_regions_can_be_elsewhere(images: list[Path], tmp_path: Path) -> None:
    here = toy_regions.engine("lxmert")
    there = Engine(here.model, here.tokenizer, quiet=True, regions=str(images[0].parent))
    moved = tmp_path / "1.png"
    assert there.match([moved], ["a fox"]) == here.match([images[1]], ["a fox"])


def test_a_model_that_sees_pixels_takes_no_regions() -> None:
    engine = toy.engine()
    with pytest.raises(UserError, match=r"Regions were named \(x\), but a model of system albef sees pixels"):
        Engine(engine.model, engine.tokenizer, regions="x")
    with pytest.raises(UserError, match=r"data\.regions is set, but a model of system albef sees pixels"):
        check_system(toy.config(data=DataConfig(regions="x")))
