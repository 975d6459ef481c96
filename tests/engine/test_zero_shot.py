"""Classes by their names."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

import toy
from albef.config import UserError
from albef.engine import Engine
from albef.engine.zero_shot import (
    class_features,
    openai_templates,
    read_templates,
    sentences,
    sentences_of_classes,
)


def test_a_class_is_the_direction_of_its_sentences_mean() -> None:
    features = normalize(torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = class_features(features)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(found, normalize(features.sum(1), dim=1))


def test_sentences_stand_class_by_class() -> None:
    found = sentences(["cat", "{} dog"], ["a photo of a {}.", "{}"])
    assert found == ["a photo of a cat.", "cat", "a photo of a {} dog.", "{} dog"]


def test_openais_templates() -> None:
    templates = openai_templates()
    assert len(set(templates)) == 80
    assert all(template.count("{}") == 1 for template in templates)
    chosen = ("itap of a {}.", "a bad photo of the {}.", "a origami {}.", "a photo of the large {}.")
    chosen += ("a {} in a video game.", "art of the {}.", "a photo of the small {}.")
    assert set(chosen) < set(templates)


def test_templates_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("\ufeffa photo of a {}.\n\n  a {} \r\n", "utf-8")
    assert read_templates(file) == ("a photo of a {}.", "a {}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"\n \n", "no templates"), (b"a photo\n", "has no {}"), (b"\xff{}", "UTF-8"), (None, "cannot be read")],
)
def test_a_file_of_templates_that_is_none(tmp_path: Path, content: bytes | None, problem: str) -> None:
    file = tmp_path / "templates.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=problem):
        read_templates(file)


def images(count: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (count, 20, 30, 3), dtype=np.uint8))


def test_an_image_is_classified_by_the_mean_of_all_sentences(engine: Engine) -> None:
    names, templates, given = ["fox", "car", "house"], ("a {}.", "{} on grass"), images(4)
    of_sentences = engine.encode_texts([t.format(name) for name in names for t in templates])
    means = of_sentences.reshape(3, 2, -1).mean(1)
    cosines = engine.encode_images(given) @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    expected = np.exp(cosines / engine.temperature)
    found = engine.classify(given, names, templates)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected / expected.sum(1, keepdims=True), rtol=1e-4)
    assert np.ptp(found, axis=0).min() > 1e-3  # it depends on the image
    assert engine.classify([], names).shape == (0, 3)


def test_a_photo_of_each_class_is_the_usual_sentence(engine: Engine) -> None:
    names, given = ["fox", "car"], images(2)
    np.testing.assert_array_equal(
        engine.classify(given, names), engine.classify(given, names, ["a photo of a {}."])
    )


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        (["fox"], ["a {}"], r"at least two classes: .* \(1 given"),
        ([], ["a {}"], r"\(0 given"),
        ("fox", ["a {}"], "names must be a list"),
        (["fox", 3], ["a {}"], "names must be strings"),
        (["fox", "car"], "a {}", "templates must be a list"),
        (["fox", "car"], [], "no templates"),
        (["fox", "car"], ["a {}", "a photo"], "'a photo' has no {}"),
        (["fox", "?!"], ["a {}"], "class name is empty"),
        (["fox", "car", "Fox"], ["a {}"], "'fox' and 'Fox' are the same class"),
        (["fox", "fox"], ["a {}"], "'fox' and 'fox' are the same class"),
        (["fox", "car"], ["a fox " * 30 + "{}"], "'fox' and 'car' are the same class"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(
    engine: Engine, names: list[str], templates: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        engine.classify(images(1), names, templates)


def test_classes_differ_if_one_template_tells_them_apart(engine: Engine) -> None:
    templates = ["a fox " * 30 + "{}", "a {}"]
    assert len(sentences_of_classes(engine.prepare, ["fox", "car"], templates)) == 4


def test_a_model_without_features_is_refused_by_what_it_was_trained_for() -> None:
    with pytest.raises(UserError, match=r"trained for entailment.* a model trained with ITC"):
        toy.engine("entailment").classify(images(1), ["fox", "car"])
