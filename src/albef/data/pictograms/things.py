"""A thing in a scene, and the words for its place and for the relation of two things."""

from dataclasses import dataclass
from typing import Literal

Size = Literal["small", "large"]
Location = Literal["left", "right", "top", "bottom", "middle"]
Relation = Literal["left", "right", "above", "below"]


LOCATIONS: tuple[Location, ...] = ("left", "right", "top", "bottom", "middle")
OPPOSITE: dict[Relation, Relation] = {"left": "right", "right": "left", "above": "below", "below": "above"}

_OFF_CENTRE = 0.16  # share of the side: from here on a thing is on the left, at the top, …
_MIDDLE = 0.08  # share of the side: nearer to the centre is in the middle
_APART = 0.30  # share of the side: from here on one thing is left of, above, … another


@dataclass(frozen=True, slots=True)
class Thing:
    """A drawing in a scene. `box` is its square (x0, y0, x1, y1) in shares of the side, y downwards."""

    noun: str
    vendor: str
    variant: int
    size: Size
    box: tuple[float, float, float, float]
    flipped: bool

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def side(self) -> float:
        return self.box[2] - self.box[0]


def location(thing: Thing) -> Location | None:
    """The word for the place, by the axis on which the thing is farther from the centre. None if no word fits."""
    x, y = (c - 0.5 for c in thing.centre)
    if max(abs(x), abs(y)) <= _MIDDLE:
        return "middle"
    if max(abs(x), abs(y)) < _OFF_CENTRE:
        return None
    if abs(x) > abs(y):
        return "left" if x < 0 else "right"
    return "top" if y < 0 else "bottom"


def is_at(thing: Thing, place: Location) -> bool:
    """Whether the word is true of the thing. A thing in a corner can be on the left and at the top."""
    x, y = (c - 0.5 for c in thing.centre)
    if place == "middle":
        return max(abs(x), abs(y)) <= _MIDDLE
    return {"left": -x, "right": x, "top": -y, "bottom": y}[place] >= _OFF_CENTRE


def relation(a: Thing, b: Thing) -> Relation | None:
    """The relation of `a` to `b`, by the axis on which they are farther apart. None if neither is clear."""
    dx, dy = b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]
    if max(abs(dx), abs(dy)) < _APART:
        return None
    if abs(dx) > abs(dy):
        return "left" if dx > 0 else "right"
    return "above" if dy > 0 else "below"


def lies(a: Thing, b: Thing, to: Relation) -> bool:
    """Whether the word is true of `a` seen from `b`. On a diagonal two words can be true."""
    dx, dy = b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]
    return {"left": dx, "right": -dx, "above": dy, "below": -dy}[to] >= _APART


def an(noun: str) -> str:
    """The words with their article, "an apple"."""
    vowel = noun.startswith(("a", "e", "i", "o", "u", "hour")) and not noun.startswith(("uni", "uku"))
    return f"{'an' if vowel else 'a'} {noun}"
