"""Zero-shot classification: figures of known features, the control, single classes, and the real path on toys."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import toy
import toy_clip
from albef.config import UserError
from albef.data.class_folders import ClassFolders, class_folders
from albef.engine import Engine
from albef.evaluation import zero_shot
from albef.evaluation.metrics import interval
from albef.evaluation.zero_shot import classified, evaluate_classes, others

NAMES = ["fox", "car", "house"]


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch):
    """Gives images the features of the classes that they look like; the classes are far apart."""

    def looking_like(classes: list[int], names: int) -> ClassFolders:
        monkeypatch.setattr(
            zero_shot, "features_of_texts", lambda _, said: np.eye(names, dtype=np.float32)[: len(said)]
        )
        monkeypatch.setattr(
            zero_shot, "features_of_images", lambda *_: np.eye(names, dtype=np.float32)[classes]
        )
        monkeypatch.setattr(zero_shot, "sentences_of_classes", lambda _, names, templates: names)
        return ClassFolders([f"class {n}" for n in range(names)], [], [], [])

    return looking_like


def figures(found: ClassFolders, labels: list[int]) -> dict[str, float]:
    images = [Path(f"{number}.png") for number in range(len(labels))]
    given = ClassFolders(found.names, images, labels, [])
    return dict(evaluate_classes(toy.engine(), given, ["a {}."]))


def interval_of(*right: int) -> tuple[float, float]:
    return interval((np.array(right), np.arange(len(right))))


def test_the_share_of_images_that_look_most_like_their_class(seen) -> None:
    found = figures(seen([0, 0, 1, 2, 0, 0], 3), [0, 0, 1, 1, 1, 1])
    assert found["data/top1"] == 0.5
    assert (found["data/top1_low"], found["data/top1_high"]) == interval_of(1, 1, 0, 0, 0, 1)
    assert (found["data/count"], found["data/skipped"]) == (6, 0)
    assert (found["data/classes"], found["data/templates"]) == (3, 1)
    assert "data/top5" not in found
    of_classes = {key: value for key, value in found.items() if key.startswith("data/class/")}
    assert of_classes == {
        "data/class/class 0/top1": 1.0,
        "data/class/class 0/top1_low": interval_of(1, 1)[0],
        "data/class/class 0/top1_high": 1.0,
        "data/class/class 0/count": 2.0,
        "data/class/class 1/top1": 0.25,
        "data/class/class 1/top1_low": interval_of(1, 0, 0, 0)[0],
        "data/class/class 1/top1_high": interval_of(1, 0, 0, 0)[1],
        "data/class/class 1/count": 4.0,
        "data/class/class 1/taken_for/class 0": 0.5,
    }


def test_the_first_five_count_if_there_are_more_classes(seen) -> None:
    assert "data/top5" not in figures(seen([0, 1], 5), [0, 1])
    found = figures(seen([0, 1], 6), [0, 1])
    assert {"data/top5", "data/top5_low", "data/blind/top5"} <= set(found)


def test_the_control_says_what_names_alone_give(seen) -> None:
    """A model that always says one class is right as often as this class is there, and no more often."""
    labels = [0] * 300 + [1] * 100
    constant = figures(seen([0] * 400, 2), labels)
    assert constant["data/top1"] == constant["data/blind/top1"] == 0.75
    perfect = figures(seen(labels, 2), labels)
    assert perfect["data/top1"] == 1
    assert perfect["data/blind/top1"] == pytest.approx(0.75**2 + 0.25**2, abs=0.06)
    assert not any(key.startswith("data/blind/") for key in figures(seen([0], 2), [0]))


@given(st.integers(2, 50))
def test_every_image_is_replaced_by_another_one(count: int) -> None:
    other = others(count)
    assert sorted(other) == list(range(count))
    assert (other != np.arange(count)).all()


def test_the_right_class_must_be_ahead_of_the_others() -> None:
    features = np.array([[1.0, 0.0], [0.0, 1.0]], np.float32)
    same = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8]], np.float32)
    rank, first = classified(features, same, np.array([1, 0]))
    assert rank.tolist() == [1, 2]
    assert first.tolist() == [0, 2]


def folder_of(place: Path, *names: str) -> Path:
    rng = np.random.default_rng(0)
    for name in names:
        (place / name).mkdir(parents=True)
        for number in range(3):
            Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(
                place / name / f"{number}.png"
            )
    return place


@pytest.mark.parametrize("engine", [toy.engine(), toy_clip.engine()], ids=["albef", "clip"])
def test_the_figures_are_those_of_the_engines_probabilities(tmp_path: Path, engine: Engine) -> None:
    found = class_folders(folder_of(tmp_path, *NAMES, "tree", "snow", "grass"))
    (tmp_path / "car" / "1.png").write_bytes(b"<html>")
    templates = ["a {}", "two {}s"]
    metrics = dict(evaluate_classes(engine, found, templates))
    kept = [number for number, image in enumerate(found.images) if image != tmp_path / "car" / "1.png"]
    labels = np.array(found.labels)[kept]
    chances = engine.classify([found.images[number] for number in kept], found.names, templates)
    before = (chances > chances[np.arange(len(kept)), labels][:, None]).sum(1)
    assert metrics["data/top1"] == (before == 0).mean()
    assert metrics["data/top5"] == (before < 5).mean()
    assert len(set(before)) > 3  # otherwise this says little
    for label, name in enumerate(found.names):
        assert metrics[f"data/class/{name}/top1"] == (before[labels == label] == 0).mean()
    assert (metrics["data/count"], metrics["data/skipped"], metrics["data/templates"]) == (17, 1, 2)
    assert metrics["data/class/car/count"] == 2


def test_nothing_readable_is_refused(tmp_path: Path, engine: Engine) -> None:
    found = class_folders(folder_of(tmp_path, *NAMES))
    for image in found.images:
        image.write_bytes(b"<html>")
    with pytest.raises(UserError, match="No readable image"):
        dict(evaluate_classes(engine, found, ["a {}"]))
