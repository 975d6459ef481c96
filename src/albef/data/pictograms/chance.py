"""Random generators that depend on a key alone, and draws from them."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import xxhash

_T = TypeVar("_T")


def generator(*key: str | int) -> np.random.Generator:
    """A generator that depends on the key alone, and is the same on every machine."""
    return np.random.Generator(
        np.random.Philox(key=xxhash.xxh3_128_intdigest("/".join(map(str, key)).encode()))
    )


def pick(rng: np.random.Generator, items: Sequence[_T]) -> _T:
    """One of the items, all equally likely."""
    return items[int(rng.random() * len(items))]


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A uniform number in [low, high)."""
    return low + (high - low) * rng.random()


def jitter(rng: np.random.Generator, reach: float) -> float:
    """A uniform number in [-reach, reach)."""
    return between(rng, -reach, reach)
