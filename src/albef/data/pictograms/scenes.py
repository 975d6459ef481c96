"""Scenes: what is where on which background, drawn from a key.

A scene is a small graph (things with a noun, a vendor, a size and a box, on a named background), so whatever
a caption claims can be checked. Nothing is stored: a scene is a function of (split, seed, epoch, index).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import xxhash

from albef.config import UserError
from albef.data.pictograms.sprites import SpriteBank, load_sprites

Kind = Literal["single", "pair", "group", "mixed"]
Aspect = Literal["noun", "count", "size", "background", "location", "relation"]
Size = Literal["small", "large"]
Location = Literal["left", "right", "top", "bottom", "middle"]
Relation = Literal["left", "right", "above", "below"]

SPLITS = ("train", "test", "unseen_vendor", "unseen_pair", "unseen_background", "unseen_template")
ASPECTS: tuple[Aspect, ...] = ("noun", "count", "size", "background", "location", "relation")
LOCATIONS: tuple[Location, ...] = ("left", "right", "top", "bottom", "middle")
BACKGROUNDS = (
    "grass",
    "sand",
    "night sky",
    "bricks",
    "blue water",
    "snow",
    "wood",
    "pink stripes",
    "yellow dots",
    "purple checks",
    "sunset",
    "gray stone",
)
MIX: Mapping[str, float] = {"single": 0.3, "pair": 0.35, "group": 0.2, "mixed": 0.15}
# Counting takes more practice than naming (measured: foils of counts rose by several points).
TRAINING_MIX: Mapping[str, float] = {"single": 0.26, "pair": 0.3, "group": 0.33, "mixed": 0.11}
HELD_OUT_VENDOR = "noto"
OPPOSITE: dict[Relation, Relation] = {"left": "right", "right": "left", "above": "below", "below": "above"}

# Shares of the picture's side. Large is at least 1.3 times small in pictures of as many things.
_SIDES: dict[tuple[bool, Size], tuple[float, float]] = {
    (True, "small"): (0.40, 0.46),
    (True, "large"): (0.70, 0.84),
    (False, "small"): (0.33, 0.37),
    (False, "large"): (0.58, 0.64),
}
_MOST_THINGS = 4
_MANY_SIDE = (0.39, 0.45)  # three or four things; they count as small
_OFF_CENTRE = 0.16  # of the side: from here on a thing is on the left, at the top, …
_MIDDLE = 0.08  # of the side: nearer to the centre than this is in the middle
_APART = 0.30  # of the side: from here on one thing is left of, above, … another
_MIN_NOUNS = 8

_T = TypeVar("_T")


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


@dataclass(frozen=True, slots=True)
class Scene:
    """Things on a background; later things are painted over earlier ones. Copies of one noun come last."""

    things: tuple[Thing, ...]
    background: str
    texture_seed: int
    kind: Kind


class Change(NamedTuple):
    """What twin scenes differ in, and the index of the (first) thing that it is about."""

    aspect: Aspect
    thing: int


class Couple(NamedTuple):
    """Scenes 2k and 2k+1; `change` is None where they have nothing to do with each other."""

    scenes: tuple[Scene, Scene]
    change: Change | None


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


def generator(*key: str | int) -> np.random.Generator:
    """A generator that depends on the key alone, on every machine."""
    return np.random.Generator(
        np.random.Philox(key=xxhash.xxh3_128_intdigest("/".join(map(str, key)).encode()))
    )


def pick(rng: np.random.Generator, items: Sequence[_T]) -> _T:
    """One of the items, each as likely."""
    return items[int(rng.random() * len(items))]


def pair_is_held_out(a: str, b: str) -> bool:
    """Whether two nouns never meet in a training scene (about one pair in ten), whatever the seed."""
    return xxhash.xxh3_64_intdigest("pair/{}/{}".format(*sorted((a, b))).encode()) % 100 < 10


def background_is_held_out(noun: str, background: str) -> bool:
    """Whether a noun is never on this background in training (about one in twelve), whatever the seed."""
    return xxhash.xxh3_64_intdigest(f"background/{noun}/{background}".encode()) % 100 < 8


class Scenes:
    """Scenes of one split, in couples (2k, 2k+1) of which a share are twins that differ in one thing.

    `mix` weighs the kinds of scene (default: by split, see `TRAINING_MIX`); `num_nouns` takes the first nouns of the
    bank. `unseen_vendor` has only drawings of the vendor that training never shows; every scene of `unseen_pair` and
    `unseen_background` has a pair of nouns, or a noun on a background, that training never shows. Raises `UserError`
    for settings that no scene can fulfil.
    """

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        num_nouns: int = 24,
        mix: Mapping[str, float] | None = None,
        twin_share: float = 0.5,
        twins_from_epoch: int = 0,
        twin_aspects: Sequence[Aspect] = ASPECTS,
        bank: SpriteBank | None = None,
    ):
        bank = bank or load_sprites()
        mix = dict(mix or (TRAINING_MIX if split == "train" else MIX))
        if split not in SPLITS:
            raise UserError(f"pictograms has no split {split!r}: choose one of {', '.join(SPLITS)}.")
        if not _MIN_NOUNS <= num_nouns <= len(bank.nouns):
            raise UserError(
                f"data.num_nouns is {num_nouns}, but pictograms has {len(bank.nouns)} nouns and needs "
                f"{_MIN_NOUNS}: choose a number between them."
            )
        if set(mix) - set(MIX) or min(mix.values()) < 0 or not sum(mix.values()) > 0:
            raise UserError(
                f"data.mix is {mix}, but it must give weights of at least 0, not all 0, to kinds of scene: "
                f"use only {', '.join(MIX)}."
            )
        if split == "unseen_pair":
            mix.pop("single", None)
            if not sum(mix.values()):
                raise UserError(
                    "Split unseen_pair needs scenes of two nouns: give data.mix a kind beside single."
                )
        self.split, self.seed = split, seed
        self.twin_share, self.twins_from_epoch = twin_share, twins_from_epoch
        self._changes = {
            kind: [a for a in aspects if a in twin_aspects] for kind, aspects in _CHANGES.items()
        }
        unseen = split == "unseen_vendor"
        self._vendors = {
            noun: [v for v in bank.vendors if (v == HELD_OUT_VENDOR) == unseen and (noun, v) in bank.images]
            for noun in bank.nouns[:num_nouns]
        }
        self._variants = {key: len(images) for key, images in bank.images.items()}
        self.nouns = tuple(noun for noun, vendors in self._vendors.items() if vendors)
        self._kinds: list[Kind] = list(mix)  # type: ignore[arg-type]
        self._kind_bounds = np.cumsum([mix[k] / sum(mix.values()) for k in self._kinds]).tolist()
        self._held_pairs = {
            (a, b) for a in self.nouns for b in self.nouns if a != b and pair_is_held_out(a, b)
        }
        self._held_backgrounds = {
            (noun, background)
            for noun in self.nouns
            for background in BACKGROUNDS
            if background_is_held_out(noun, background)
        }

    def scene(self, index: int, epoch: int = 0) -> Scene:
        """Scene number `index`; any index from 0 on."""
        return self.couple(index // 2, epoch).scenes[index % 2]

    def couple(self, number: int, epoch: int = 0) -> Couple:
        """Scenes 2·number and 2·number+1."""
        rng = generator("scene", self.split, self.seed, epoch, number)
        twins = rng.random() < self.twin_share and epoch >= self.twins_from_epoch
        first = self.draw(rng)
        twin = self._twin(first, rng) if twins else None
        if twin is None:
            return Couple((first, self.draw(rng)), None)
        second, change = twin
        # The change of a count takes a copy away, so without a swap the second scene would never have more.
        return Couple((second, first) if rng.random() < 0.5 else (first, second), change)

    def draw(self, rng: np.random.Generator) -> Scene:
        """A scene by the generator's chance alone."""
        at = rng.random()
        kind = next(
            (k for k, bound in zip(self._kinds, self._kind_bounds, strict=True) if at < bound),
            self._kinds[-1],
        )
        for _ in range(100_000):
            nouns = [pick(rng, self.nouns) for _ in range(self._num_nouns(kind, rng))]
            background = pick(rng, BACKGROUNDS)
            if len(set(nouns)) == len(nouns) and self._allowed(nouns, background):
                break
        else:
            raise UserError(
                f"Split {self.split} of pictograms has no {kind} scene with these {len(self.nouns)} nouns: "
                f"set a larger data.num_nouns."
            )
        sprites = [self.sprite(noun, rng) for noun in nouns]
        return Scene(_LAYOUTS[kind](rng, sprites), background, _texture_seed(rng), kind)

    @staticmethod
    def _num_nouns(kind: Kind, rng: np.random.Generator) -> int:
        if kind == "group":
            return 1 + (rng.random() < 0.4)
        if kind == "mixed":
            return 2 + (rng.random() < 0.5)
        return 1 if kind == "single" else 2

    def allows(self, scene: Scene) -> bool:
        """Whether the split may show these nouns together, and on this background."""
        return self._allowed(list(dict.fromkeys(thing.noun for thing in scene.things)), scene.background)

    def _allowed(self, nouns: Sequence[str], background: str) -> bool:
        held_pair = any((a, b) in self._held_pairs for i, a in enumerate(nouns) for b in nouns[:i])
        held_background = any((noun, background) in self._held_backgrounds for noun in nouns)
        return held_pair == (self.split == "unseen_pair") and held_background == (
            self.split == "unseen_background"
        )

    def sprite(self, noun: str, rng: np.random.Generator, vendor: str | None = None) -> Thing:
        """A thing without a place; by the given vendor if that one draws it."""
        if vendor not in self._vendors[noun]:
            vendor = pick(rng, self._vendors[noun])
        variant = int(rng.random() * self._variants[noun, vendor])
        return Thing(noun, vendor, variant, "small", (0.0, 0.0, 1.0, 1.0), rng.random() < 0.5)

    def _twin(self, scene: Scene, rng: np.random.Generator) -> tuple[Scene, Change] | None:
        """A scene that differs from this one in one thing, and in what; None where the split has none."""
        options = self._changes[scene.kind]
        for _ in range(100 if options else 0):
            aspect = pick(rng, options)
            index = int(rng.random() * len({thing.noun for thing in scene.things}))
            twin = self._changed(scene, aspect, index, rng)
            if twin is None:
                continue
            if self.allows(twin):
                return twin, Change(aspect, _counted(scene) if aspect == "count" else index)
        return None

    def _changed(self, scene: Scene, aspect: Aspect, index: int, rng: np.random.Generator) -> Scene | None:
        """The scene with that aspect (of that thing) changed; None where it cannot be."""
        things, old = scene.things, scene.things[index]
        if aspect == "background":
            return replace(scene, background=pick(rng, [b for b in BACKGROUNDS if b != scene.background]))
        if aspect == "noun":
            noun = pick(rng, self.nouns)
            if any(thing.noun == noun for thing in things):
                return None
            new = self.sprite(noun, rng, old.vendor)
            renamed = (
                replace(t, noun=noun, vendor=new.vendor, variant=new.variant) if t.noun == old.noun else t
                for t in things
            )
            return replace(scene, things=tuple(renamed))
        if aspect == "count":
            return replace(scene, things=things[:-1])
        if aspect == "size":
            if len(things) > 2:
                return None
            if len(things) == 1 and old.size == "small" and location(old) != "middle":
                return None  # it would have to move to have room to grow
            # Of one large and one small thing both change: only knowing which is which tells such twins apart.
            both = len({thing.size for thing in things}) == 2
            resized = (
                _resized(rng, t, alone=len(things) == 1) if both or i == index else t
                for i, t in enumerate(things)
            )
            return replace(scene, things=tuple(resized))
        if aspect == "location":
            if old.size == "large":
                return None
            place = pick(rng, [p for p in LOCATIONS if p != location(old)])
            return replace(scene, things=(_placed_alone(rng, old, old.size, place),))
        assert aspect == "relation"
        mirror = rng.random() < 0.7
        return replace(scene, things=tuple(replace(t, box=_moved(t.box, things, mirror)) for t in things))


_CHANGES: dict[Kind, tuple[Aspect, ...]] = {  # twice: twice as likely
    "single": ("noun", "size", "background", "location", "location"),
    "pair": ("noun", "size", "background", "relation", "relation"),
    "group": ("noun", "background", "count", "count"),
    "mixed": ("noun", "background", "size"),
}


def _counted(scene: Scene) -> int:
    """The index of the first copy of a group."""
    return next(i for i, thing in enumerate(scene.things) if thing.noun == scene.things[-1].noun)


def _texture_seed(rng: np.random.Generator) -> int:
    return int(rng.random() * 2**53)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    return low + (high - low) * rng.random()


def _jitter(rng: np.random.Generator, reach: float) -> float:
    return _between(rng, -reach, reach)


def _size(rng: np.random.Generator) -> Size:
    return "small" if rng.random() < 0.5 else "large"


def _at(thing: Thing, size: Size, x: float, y: float, side: float, flipped: bool | None = None) -> Thing:
    """The thing with its centre at (x, y), moved where it would leave the picture."""
    half = side / 2
    x, y = min(max(x, half), 1 - half), min(max(y, half), 1 - half)
    x0, y0 = max(x - half, 0.0), max(y - half, 0.0)
    box = (x0, y0, min(x0 + side, 1.0), min(y0 + side, 1.0))
    return Thing(
        thing.noun, thing.vendor, thing.variant, size, box, thing.flipped if flipped is None else flipped
    )


def _placed_alone(rng: np.random.Generator, thing: Thing, size: Size, place: Location) -> Thing:
    """A small thing anywhere; a large one fills the middle, since it can't be clearly off centre."""
    side = _between(rng, *_SIDES[True, size])
    if size == "large" or place == "middle":
        return _at(thing, size, 0.5 + _jitter(rng, 0.06), 0.5 + _jitter(rng, 0.06), side)
    off = _between(rng, 0.18, 0.5 - side / 2)
    return _off_centre(thing, size, _DIRECTIONS[place], off, _jitter(rng, 0.08), side)


_DIRECTIONS: dict[Location, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "top": (0, -1),
    "bottom": (0, 1),
}


def _off_centre(
    thing: Thing, size: Size, direction: tuple[int, int], off: float, aside: float, side: float
) -> Thing:
    """`off` along a direction of one axis from the centre, `aside` across it."""
    dx, dy = direction
    return _at(thing, size, 0.5 + dx * off + abs(dy) * aside, 0.5 + dy * off + abs(dx) * aside, side)


def _single(rng: np.random.Generator, sprites: list[Thing]) -> tuple[Thing, ...]:
    return (_placed_alone(rng, sprites[0], _size(rng), pick(rng, LOCATIONS)),)


def _pair(rng: np.random.Generator, sprites: list[Thing]) -> tuple[Thing, ...]:
    dx, dy = pick(rng, _SIDEWAYS)
    things = []
    for sprite, direction in zip(sprites, ((dx, dy), (-dx, -dy)), strict=True):
        size = _size(rng)
        side = _between(rng, *_SIDES[False, size])
        things.append(_off_centre(sprite, size, direction, _off(rng, side), _jitter(rng, 0.07), side))
    return tuple(things)


_CORNERS = ((-1, -1), (1, -1), (-1, 1), (1, 1))
_SIDEWAYS = ((-1, 0), (1, 0), (0, -1), (0, 1))
_TRIANGLES = tuple(
    (*(corner for corner in _CORNERS if corner[0] * dx + corner[1] * dy < 0), (dx, dy))
    for dx, dy in _SIDEWAYS
)


def _places(rng: np.random.Generator, number: int) -> list[tuple[int, int]]:
    """Directions from the centre that keep up to four things apart, shuffled."""
    if number == 2:
        a = pick(rng, _CORNERS + _SIDEWAYS)
        return [a, (-a[0], -a[1])]
    form = rng.random()
    places: tuple[tuple[int, int], ...] = _SIDEWAYS if form < 0.2 else _CORNERS
    if number == 3 and form > 0.6:
        places = pick(rng, _TRIANGLES)
    return [places[i] for i in rng.permutation(len(places))[:number].tolist()]


def _off(rng: np.random.Generator, side: float) -> float:
    """How far from the centre to put one of several things: the larger, the nearer to the edge."""
    edge = 0.5 - side / 2
    if edge < 0.25:
        return _between(rng, edge - 0.02, edge)
    return _between(rng, max(0.19, edge - 0.08), min(0.3, edge))


def _spread(rng: np.random.Generator, sprites: list[Thing], sizes: list[Size]) -> tuple[Thing, ...]:
    """The sprites at places that overlap slightly at most; three or more are all of a middling size."""
    things = []
    for sprite, size, (dx, dy) in zip(sprites, sizes, _places(rng, len(sprites)), strict=True):
        side = _between(rng, *(_MANY_SIDE if len(sprites) > 2 else _SIDES[False, size]))
        if len(sprites) > 2 and not (dx and dy):  # at the edge, or it would cover its neighbours
            x, y = (0.5 + d * (0.5 - side / 2) + _jitter(rng, 0.02) for d in (dx, dy))
        else:
            x, y = (0.5 + d * _off(rng, side) + _jitter(rng, 0.0 if d else 0.04) for d in (dx, dy))
        things.append(_at(sprite, size, x, y, side, rng.random() < 0.5))
    return tuple(things)


def _group(rng: np.random.Generator, sprites: list[Thing]) -> tuple[Thing, ...]:
    *others, copied = sprites
    copies = 2 + int(rng.random() * (_MOST_THINGS - len(others) - 1))
    total = copies + len(others)
    size: Size = "small" if total > 2 else _size(rng)
    return _spread(rng, [*others, *[copied] * copies], [size] * total)


def _mixed(rng: np.random.Generator, sprites: list[Thing]) -> tuple[Thing, ...]:
    sizes: list[Size] = ["small"] * 3 if len(sprites) > 2 else [_size(rng) for _ in sprites]
    return _spread(rng, sprites, sizes)


_LAYOUTS = {"single": _single, "pair": _pair, "group": _group, "mixed": _mixed}


def _resized(rng: np.random.Generator, thing: Thing, alone: bool) -> Thing:
    """The thing in the other size, as near to its old place as fits."""
    size: Size = "large" if thing.size == "small" else "small"
    return _at(thing, size, *thing.centre, _between(rng, *_SIDES[alone, size]))


def _moved(
    box: tuple[float, float, float, float], things: tuple[Thing, ...], mirror: bool
) -> tuple[float, float, float, float]:
    """The box after a pair swapped sides (mirrored along its axis) or was turned from beside to above."""
    x0, y0, x1, y1 = box
    if not mirror:
        return y0, x0, y1, x1
    return (1 - x1, y0, 1 - x0, y1) if relation(*things) in ("left", "right") else (x0, 1 - y1, x1, 1 - y0)
