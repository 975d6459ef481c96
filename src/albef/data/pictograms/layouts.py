"""The places of a scene's things, by the kind of scene, and how they move in a twin."""

from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from albef.data.pictograms.chance import between, jitter, pick
from albef.data.pictograms.things import LOCATIONS, Location, Size, Thing, relation

Kind = Literal["single", "pair", "group", "mixed"]

# Shares of the image's side. With equal numbers of things, large is at least 1.3 times small.
_SIDES: dict[tuple[bool, Size], tuple[float, float]] = {
    (True, "small"): (0.40, 0.46),
    (True, "large"): (0.70, 0.84),
    (False, "small"): (0.33, 0.37),
    (False, "large"): (0.58, 0.64),
}
_MOST_THINGS = 4
_MANY_SIDE = (0.39, 0.45)  # of three or four things, which count as small


def _size(rng: np.random.Generator) -> Size:
    return "small" if rng.random() < 0.5 else "large"


def _at(thing: Thing, size: Size, x: float, y: float, side: float, flipped: bool | None = None) -> Thing:
    """The thing with its centre at (x, y), moved back if it would leave the image."""
    half = side / 2
    x, y = min(max(x, half), 1 - half), min(max(y, half), 1 - half)
    x0, y0 = max(x - half, 0.0), max(y - half, 0.0)
    box = (x0, y0, min(x0 + side, 1.0), min(y0 + side, 1.0))
    return Thing(
        thing.noun, thing.vendor, thing.variant, size, box, thing.flipped if flipped is None else flipped
    )


def placed_alone(rng: np.random.Generator, thing: Thing, size: Size, place: Location) -> Thing:
    """A small thing anywhere, or a large one in the middle, since it cannot be clearly off centre."""
    side = between(rng, *_SIDES[True, size])
    if size == "large" or place == "middle":
        return _at(thing, size, 0.5 + jitter(rng, 0.06), 0.5 + jitter(rng, 0.06), side)
    off = between(rng, 0.18, 0.5 - side / 2)
    return _off_centre(thing, size, _DIRECTIONS[place], off, jitter(rng, 0.08), side)


_DIRECTIONS: dict[Location, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
}


def _off_centre(
    thing: Thing, size: Size, direction: tuple[int, int], off: float, aside: float, side: float
) -> Thing:
    """A position `off` along a direction from the centre, and `aside` across it."""
    dx, dy = direction
    return _at(thing, size, 0.5 + dx * off + abs(dy) * aside, 0.5 + dy * off + abs(dx) * aside, side)


def _single(rng: np.random.Generator, sprites: list[Thing]) -> tuple[Thing, ...]:
    return (placed_alone(rng, sprites[0], _size(rng), pick(rng, LOCATIONS)),)


def _pair(rng: np.random.Generator, sprites: list[Thing]) -> tuple[Thing, ...]:
    dx, dy = pick(rng, _SIDEWAYS)
    things = []
    for sprite, direction in zip(sprites, ((dx, dy), (-dx, -dy)), strict=True):
        size = _size(rng)
        side = between(rng, *_SIDES[False, size])
        things.append(_off_centre(sprite, size, direction, _off(rng, side), jitter(rng, 0.07), side))
    return tuple(things)


_CORNERS = ((-1, -1), (1, -1), (-1, 1), (1, 1))
_SIDEWAYS = ((-1, 0), (1, 0), (0, -1), (0, 1))
_TRIANGLES = tuple(
    (*(corner for corner in _CORNERS if corner[0] * dx + corner[1] * dy < 0), (dx, dy))
    for dx, dy in _SIDEWAYS
)


def _places(rng: np.random.Generator, number: int) -> list[tuple[int, int]]:
    """Shuffled directions from the centre that keep up to four things apart."""
    if number == 2:
        a = pick(rng, _CORNERS + _SIDEWAYS)
        return [a, (-a[0], -a[1])]
    form = rng.random()
    places: tuple[tuple[int, int], ...] = _SIDEWAYS if form < 0.2 else _CORNERS
    if number == 3 and form > 0.6:
        places = pick(rng, _TRIANGLES)
    return [places[i] for i in rng.permutation(len(places))[:number].tolist()]


def _off(rng: np.random.Generator, side: float) -> float:
    """The distance from the centre for one of several things. Larger things are nearer to the edge."""
    edge = 0.5 - side / 2
    if edge < 0.25:
        return between(rng, edge - 0.02, edge)
    return between(rng, max(0.19, edge - 0.08), min(0.3, edge))


def _spread(rng: np.random.Generator, sprites: list[Thing], sizes: list[Size]) -> tuple[Thing, ...]:
    """The sprites at places that hardly overlap. Three or more all have a middle size."""
    things = []
    for sprite, size, (dx, dy) in zip(sprites, sizes, _places(rng, len(sprites)), strict=True):
        side = between(rng, *(_MANY_SIDE if len(sprites) > 2 else _SIDES[False, size]))
        if len(sprites) > 2 and not (dx and dy):  # at the edge, otherwise it would cover its neighbours
            x, y = (0.5 + d * (0.5 - side / 2) + jitter(rng, 0.02) for d in (dx, dy))
        else:
            x, y = (0.5 + d * _off(rng, side) + jitter(rng, 0.0 if d else 0.04) for d in (dx, dy))
        things.append(_at(sprite, size, x, y, side, rng.random() < 0.5))
    return tuple(things)


def group(rng: np.random.Generator, sprites: list[Thing], least_copies: int) -> tuple[Thing, ...]:
    """Several copies of the last sprite and the other sprites, all of one size."""
    *others, copied = sprites
    most = _MOST_THINGS - len(others)
    copies = least_copies + int(rng.random() * (most - least_copies + 1))
    total = copies + len(others)
    size: Size = "small" if total > 2 else _size(rng)
    return _spread(rng, [*others, *[copied] * copies], [size] * total)


def _mixed(rng: np.random.Generator, sprites: list[Thing]) -> tuple[Thing, ...]:
    sizes: list[Size] = ["small"] * 3 if len(sprites) > 2 else [_size(rng) for _ in sprites]
    return _spread(rng, sprites, sizes)


LAYOUTS: Mapping[Kind, Callable[[np.random.Generator, list[Thing]], tuple[Thing, ...]]] = {
    "single": _single,
    "pair": _pair,
    "mixed": _mixed,
}


def resized(rng: np.random.Generator, thing: Thing, alone: bool) -> Thing:
    """The thing in the other size, as near to its old place as possible."""
    size: Size = "large" if thing.size == "small" else "small"
    return _at(thing, size, *thing.centre, between(rng, *_SIDES[alone, size]))


def moved(
    box: tuple[float, float, float, float], things: tuple[Thing, ...], mirror: bool
) -> tuple[float, float, float, float]:
    """The box after a pair swapped sides (mirrored along its axis) or was turned from beside to above."""
    x0, y0, x1, y1 = box
    if not mirror:
        return y0, x0, y1, x1
    return (1 - x1, y0, 1 - x0, y1) if relation(*things) in ("left", "right") else (x0, 1 - y1, x1, 1 - y0)
