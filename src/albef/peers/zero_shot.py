"""Classes told apart by their names alone: one feature per class, out of sentences made from templates."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from albef.model.albef import unit


def class_features(
    features: Float[Tensor, "classes templates width"],
) -> Float[Tensor, "classes width"]:
    """A unit-length feature per class: the mean over the features of its sentences, which have unit length.

    An image belongs to the class whose feature is most similar to its own (Radford et al., 2021, §3.1.4).
    """
    return unit(features.mean(1))


def sentences(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """All sentences of the first class, then all of the second, and so on. "{}" in a template is the name's place."""
    return [template.replace("{}", name) for name in names for template in templates]
