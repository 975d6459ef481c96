"""Two detectors: the oracle has the boxes of the scene; the poor one is off, misses things and sees too many."""

import detector
import numpy as np
import pytest
import torch
from detector import DETECTORS, WHOLE, Classifier, crop, crops_of, false_box, iou, moved, trained

from albef.data.pictograms.chance import generator
from albef.data.pictograms.painting import Painter
from albef.data.pictograms.scenes import Scenes

SCENES = [Scenes("train", 3, 24).scene(index) for index in range(1500)]


def test_the_oracle_has_the_boxes_of_things() -> None:
    rng = np.random.default_rng(0)
    assert DETECTORS["oracle"](SCENES[0], rng) == [thing.box for thing in SCENES[0].things]


def test_boxes_are_moved_to_an_iou_of_seven_tenths() -> None:
    rng = np.random.default_rng(0)
    found = [iou(thing.box, moved(thing.box, rng, detector.REACH)) for s in SCENES for thing in s.things]
    assert np.mean(found) == pytest.approx(0.7, abs=0.01)
    assert np.min(found) > 0.3


def test_the_poor_detector_misses_one_in_ten_and_sees_two_things_too_many() -> None:
    rng = np.random.default_rng(0)
    things = sum(len(scene.things) for scene in SCENES)
    near, covering = 0, 0
    for scene in SCENES:
        *boxes, whole = DETECTORS["poor"](scene, rng)
        assert whole == WHOLE
        near += len(boxes) - 2
        covering += sum(iou(box, thing.box) >= 0.3 for box in boxes[-2:] for thing in scene.things)
        for x0, y0, x1, y1 in boxes:
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1
    assert near / things == pytest.approx(0.9, abs=0.01)
    assert covering < 0.02 * len(SCENES)


def test_iou_of_known_boxes() -> None:
    assert iou((0, 0, 1, 1), (0, 0, 0.5, 1)) == 0.5
    assert iou((0, 0, 0.5, 0.5), (0.5, 0.5, 1, 1)) == 0
    assert iou((0, 0, 0.5, 0.5), (0.25, 0, 0.75, 0.5)) == pytest.approx(1 / 3)


def test_a_crop_shows_what_is_in_the_box() -> None:
    image = np.zeros((40, 40, 3), np.uint8)
    image[10:20, 20:40] = 200
    assert (crop(image, (0.5, 0.25, 1.0, 0.5)) == 200).all()
    assert (crop(image, (0.0, 0.0, 0.5, 0.25)) == 0).all()
    for narrow in ((1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 0.0)):
        assert crop(image, narrow).shape == (detector.CROP, detector.CROP, 3)


def test_crops_are_labelled_with_their_thing_or_as_background() -> None:
    scene = SCENES[0]
    nouns = Scenes("train", 3, 24).nouns
    crops = crops_of([scene], nouns, Painter(48), np.random.default_rng(0))
    assert crops.nouns.tolist() == [*(1 + nouns.index(thing.noun) for thing in scene.things), 0, 0]
    assert len(set(crops.grounds.tolist())) == 1
    assert len(crops.pixels) == len(crops.nouns) == len(crops.grounds)


def test_a_classifier_learns_and_is_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector, "TEST_SCENES", 40)
    monkeypatch.setattr(detector, "IMAGES_PER_STEP", 16)
    said: list[str] = []
    before, first, again = (trained(8, 32, steps, said.append) for steps in (0, 12, 12))
    assert first.accuracy["surroundings"] > before.accuracy["surroundings"] + 0.2
    assert first.accuracy == again.accuracy
    for one, other in zip(first.classifier.parameters(), again.classifier.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    assert "step 12 of 12" in said[-1]
    shown = np.stack([crop(Painter(32).paint(scene), detector.WHOLE) for scene in SCENES])
    assert 0.3 < first.classifier(shown).features.square().mean() < 3
    assert first.classifier.scale != 1


def test_features_are_wide_and_not_negative() -> None:
    seen = Classifier(8).eval()(np.zeros((2, 32, 32, 3), np.uint8))
    assert seen.features.shape == (2, detector.WIDTH)
    assert (seen.features >= 0).all()
    assert seen.classes.shape == (2, 9)


def test_a_false_box_depends_on_its_generator_alone() -> None:
    assert false_box(SCENES[1], generator("a")) == false_box(SCENES[1], generator("a"))
    assert false_box(SCENES[1], generator("a")) != false_box(SCENES[1], generator("b"))
