"""Classes by their names."""

from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from albef.config import UserError
from albef.peers.zero_shot import class_features, openai_templates, read_templates, sentences


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
