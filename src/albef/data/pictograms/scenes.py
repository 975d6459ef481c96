"""Scenes: which things are where on which background, drawn from a key.

A scene is a small graph: things with a noun, a vendor, a size and a box, on a named background. So every claim of a
caption can be checked. Nothing is stored: a scene is a function of (split, seed, epoch, index).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import xxhash

from albef.config import UserError
from albef.data.pictograms.chance import generator, pick
from albef.data.pictograms.layouts import LAYOUTS, Kind, group, moved, placed_alone, resized
from albef.data.pictograms.sprites import SpriteBank, load_sprites
from albef.data.pictograms.things import LOCATIONS, Thing, location

Aspect = Literal["noun", "count", "size", "background", "location", "relation"]
SPLITS = ("train", "test", "unseen_vendor", "unseen_pair", "unseen_background", "unseen_template")
ASPECTS: tuple[Aspect, ...] = ("noun", "count", "size", "background", "location", "relation")
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
# Counting needs more practice than naming (measured: accuracy on count foils rose by several points).
TRAINING_MIX: Mapping[str, float] = {"single": 0.25, "pair": 0.29, "group": 0.37, "mixed": 0.09}
HELD_OUT_VENDOR = "noto"

_MIN_NOUNS = 8
_MANY_SHARE = 0.7  # of groups with a twin: these have three or four of a kind


@dataclass(frozen=True, slots=True)
class Scene:
    """Things on a background. Later things are drawn over earlier ones. Copies of one noun come last."""

    things: tuple[Thing, ...]
    background: str
    texture_seed: int
    kind: Kind


class Change(NamedTuple):
    """What twin scenes differ in, and the index of the (first) thing concerned."""

    aspect: Aspect
    thing: int


class Couple(NamedTuple):
    """Scenes 2k and 2k+1. `change` is None if they are unrelated."""

    scenes: tuple[Scene, Scene]
    change: Change | None


def pair_is_held_out(a: str, b: str) -> bool:
    """Whether two nouns are never together in training (about one pair in ten), for every seed."""
    return xxhash.xxh3_64_intdigest("pair/{}/{}".format(*sorted((a, b))).encode()) % 100 < 10


def background_is_held_out(noun: str, background: str) -> bool:
    """Whether a noun is never on this background in training (about one in twelve), for every seed."""
    return xxhash.xxh3_64_intdigest(f"background/{noun}/{background}".encode()) % 100 < 8


class Scenes:
    """Scenes of one split, in couples (2k, 2k+1). A share of the couples are twins that differ in one thing.

    `mix` weighs the kinds of scene (default: by split, see `TRAINING_MIX`). `num_nouns` takes the first nouns of the
    bank. `unseen_vendor` only has drawings of the vendor that training never shows. Every scene of `unseen_pair` has two
    nouns, and of `unseen_background` a noun and a background, that training never shows together. Raises `UserError` for
    settings that no scene can fulfil.
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
                f"data.num_nouns is {num_nouns}, but pictograms has {len(bank.nouns)} nouns and needs at least "
                f"{_MIN_NOUNS}. Choose a number between them."
            )
        if set(mix) - set(MIX) or min(mix.values()) < 0 or not sum(mix.values()) > 0:
            raise UserError(
                f"data.mix is {mix}, but it must give kinds of scene weights of at least 0, not all 0. "
                f"The kinds are {', '.join(MIX)}."
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
        """Scene number `index`, from 0 on without end."""
        return self.couple(index // 2, epoch).scenes[index % 2]

    def couple(self, number: int, epoch: int = 0) -> Couple:
        """Scenes 2·number and 2·number+1."""
        rng = generator("scene", self.split, self.seed, epoch, number)
        twins = rng.random() < self.twin_share and epoch >= self.twins_from_epoch
        # Four against three and three against two are harder than two against one, so most count twins have those.
        many = twins and "count" in self._changes["group"] and rng.random() < _MANY_SHARE
        first = self.draw(rng, least_copies=3 if many else 2)
        twin = self._twin(first, rng) if twins else None
        if twin is None:
            return Couple((first, self.draw(rng)), None)
        second, change = twin
        # A change of count removes a copy. Without a swap the second scene would never have more things.
        return Couple((second, first) if rng.random() < 0.5 else (first, second), change)

    def draw(self, rng: np.random.Generator, least_copies: int = 2) -> Scene:
        """A random scene. A group has at least so many of its kind."""
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
                f"Split {self.split} of pictograms has no {kind} scene with these {len(self.nouns)} nouns. "
                f"Set a larger data.num_nouns."
            )
        sprites = [self.sprite(noun, rng) for noun in nouns]
        things = group(rng, sprites, least_copies) if kind == "group" else LAYOUTS[kind](rng, sprites)
        return Scene(things, background, _texture_seed(rng), kind)

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
        """A thing without a place, drawn by the given vendor if possible."""
        if vendor not in self._vendors[noun]:
            vendor = pick(rng, self._vendors[noun])
        variant = int(rng.random() * self._variants[noun, vendor])
        return Thing(noun, vendor, variant, "small", (0.0, 0.0, 1.0, 1.0), rng.random() < 0.5)

    def _twin(self, scene: Scene, rng: np.random.Generator) -> tuple[Scene, Change] | None:
        """A scene that differs from this one in one thing, and the change. None if the split has none."""
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
        """The scene with that aspect (of that thing) changed. None if that is impossible."""
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
                return None  # it has no room to grow without moving
            # A large and a small thing both change, so that twins differ only in which of them is large.
            both = len({thing.size for thing in things}) == 2
            things = tuple(
                resized(rng, t, alone=len(things) == 1) if both or i == index else t
                for i, t in enumerate(things)
            )
            return replace(scene, things=things)
        if aspect == "location":
            if old.size == "large":
                return None
            place = pick(rng, [p for p in LOCATIONS if p != location(old)])
            return replace(scene, things=(placed_alone(rng, old, old.size, place),))
        assert aspect == "relation"
        mirror = rng.random() < 0.7
        return replace(scene, things=tuple(replace(t, box=moved(t.box, things, mirror)) for t in things))


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
