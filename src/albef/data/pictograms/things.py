"""A thing in a scene, and the words for where it is and how two lie to each other."""

from dataclasses import dataclass
from typing import Literal

Size = Literal["small", "large"]
Location = Literal["left", "right", "top", "bottom", "middle"]
Relation = Literal["left", "right", "above", "below"]


LOCATIONS: tuple[Location, ...] = ("left", "right", "top", "bottom", "middle")
OPPOSITE: dict[Relation, Relation] = {"left": "right", "right": "left", "above": "below", "below": "above"}

_OFF_CENTRE = 0.16  # of the side: from here on a thing is on the left, at the top, …
_MIDDLE = 0.08  # of the side: nearer to the centre than this is in the middle
_APART = 0.30  # of the side: from here on one thing is left of, above, … another


@dataclass(frozen=True, slots=True)
class Thing:
    """One drawing in a scene; `box` is its square (x0, y0, x1, y1) in shares of the side, y downwards."""

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
    """Where the thing is, by the axis on which it is farther from the centre; None where no word fits."""
    x, y = (c - 0.5 for c in thing.centre)
    if max(abs(x), abs(y)) <= _MIDDLE:
        return "middle"
    if max(abs(x), abs(y)) < _OFF_CENTRE:
        return None
    if abs(x) > abs(y):
        return "left" if x < 0 else "right"
    return "top" if y < 0 else "bottom"


def is_at(thing: Thing, place: Location) -> bool:
    """Whether the word is true of the thing; a thing in a corner is on the left and at the top."""
    x, y = (c - 0.5 for c in thing.centre)
    if place == "middle":
        return max(abs(x), abs(y)) <= _MIDDLE
    return {"left": -x, "right": x, "top": -y, "bottom": y}[place] >= _OFF_CENTRE


def relation(a: Thing, b: Thing) -> Relation | None:
    """How `a` lies to `b`, by the axis on which they are farther apart; None where neither is clear."""
    dx, dy = b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]
    if max(abs(dx), abs(dy)) < _APART:
        return None
    if abs(dx) > abs(dy):
        return "left" if dx > 0 else "right"
    return "above" if dy > 0 else "below"


def lies(a: Thing, b: Thing, to: Relation) -> bool:
    """Whether the word is true of `a` seen from `b`; of two things on a diagonal two words can be true."""
    dx, dy = b.centre[0] - a.centre[0], b.centre[1] - a.centre[1]
    return {"left": dx, "right": -dx, "above": dy, "below": -dy}[to] >= _APART


def an(noun: str) -> str:
    """The words with their article, "an apple"."""
    vowel = noun.startswith(("a", "e", "i", "o", "u", "hour")) and not noun.startswith(("uni", "uku"))
    return f"{'an' if vowel else 'a'} {noun}"
