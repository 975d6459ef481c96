"""Chance that depends on a key alone, and draws from it."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import xxhash

_T = TypeVar("_T")


def generator(*key: str | int) -> np.random.Generator:
    """A generator that depends on the key alone, on every machine."""
    return np.random.Generator(
        np.random.Philox(key=xxhash.xxh3_128_intdigest("/".join(map(str, key)).encode()))
    )


def pick(rng: np.random.Generator, items: Sequence[_T]) -> _T:
    """One of the items, each as likely."""
    return items[int(rng.random() * len(items))]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number in [low, high), each as likely."""
    return low + (high - low) * rng.random()


def jitter(rng: np.random.Generator, reach: float) -> float:
    """A number in [-reach, reach), each as likely."""
    return between(rng, -reach, reach)
