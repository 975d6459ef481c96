"""Classes by their names."""

import torch
from torch.nn.functional import normalize

from albef.peers.zero_shot import class_features, sentences


def test_a_class_is_the_direction_of_its_sentences_mean() -> None:
    features = normalize(torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    found = class_features(features)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(found, normalize(features.sum(1), dim=1))


def test_sentences_stand_class_by_class() -> None:
    found = sentences(["cat", "{} dog"], ["a photo of a {}.", "{}"])
    assert found == ["a photo of a cat.", "cat", "a photo of a {} dog.", "{} dog"]
