"""Captions of scenes: what they claim, whether it is true, and many ways to say it.

A `Claim` is the meaning without its wording. A few numbers (`choices`) decide the wording. So two claims that differ in
one thing can have the same wording except for that thing: captions of twin scenes, and foils.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import xxhash

from albef.data.pictograms.chance import pick
from albef.data.pictograms.scenes import BACKGROUNDS, Aspect, Change, Scene
from albef.data.pictograms.sprites import load_sprites
from albef.data.pictograms.things import (
    LOCATIONS,
    OPPOSITE,
    Location,
    Relation,
    Size,
    an,
    is_at,
    lies,
    location,
    relation,
)

Templates = Literal["train", "unseen"]
COUNTS = (2, 3, 4)


def templates_of(split: str) -> Templates:
    """The wordings of a split. `unseen_template` has wordings that training never uses."""
    return "unseen" if split == "unseen_template" else "train"


@dataclass(frozen=True, slots=True)
class Mention:
    """A thing that a caption names: exactly `count` of that noun, all of that size, at that place (if one)."""

    noun: str
    count: int = 1
    size: Size | None = None
    location: Location | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a caption says. None means unsaid. `relation` is where the first of two things is, seen from the second."""

    things: tuple[Mention, ...]
    relation: Relation | None = None
    background: str | None = None


def holds(claim: Claim, scene: Scene) -> bool:
    """Whether the claim is true of the scene. It need not mention everything in the scene."""
    if claim.background is not None and claim.background != scene.background:
        return False
    named = []
    for mention in claim.things:
        things = [thing for thing in scene.things if thing.noun == mention.noun]
        if len(things) != mention.count:
            return False
        if mention.size is not None and any(thing.size != mention.size for thing in things):
            return False
        if mention.location is not None and not is_at(things[0], mention.location):
            return False
        named.append(things[0])
    return claim.relation is None or lies(named[0], named[1], claim.relation)


def meaning(claim: Claim) -> int:
    """A stable 63-bit number, equal for equal meanings ("fox left of car", "car right of fox")."""
    things, to = claim.things, claim.relation
    if to in ("right", "below"):
        things, to = things[::-1], OPPOSITE[to]
    said = [f"{m.noun},{m.count},{m.size},{m.location}" for m in things]
    text = ";".join(said if to else sorted(said))
    return xxhash.xxh3_64_intdigest(f"{text};{to};{claim.background}".encode()) >> 1


@dataclass(frozen=True, slots=True)
class Plan:
    """Which things of a scene a caption mentions, by index. One plan gives corresponding claims for twin scenes."""

    things: tuple[int, ...]
    sized: frozenset[int] = frozenset()
    located: frozenset[int] = frozenset()
    related: bool = False
    background: bool = False

    def claim(self, scene: Scene) -> Claim:
        """The true claim about everything in the scene that the plan mentions."""
        mentions = []
        for index in self.things:
            thing = scene.things[index]
            count = sum(other.noun == thing.noun for other in scene.things)
            size = thing.size if index in self.sized else None
            mentions.append(
                Mention(thing.noun, count, size, location(thing) if index in self.located else None)
            )
        related = relation(*(scene.things[index] for index in self.things)) if self.related else None
        return Claim(tuple(mentions), related, scene.background if self.background else None)


def plan(scene: Scene, rng: np.random.Generator, change: Change | None = None, rich: bool = False) -> Plan:
    """A plan of what to say about a scene. It always says what twins differ in. A rich plan says more."""
    aspect, changed = change or (None, -1)
    nouns = [thing.noun for thing in scene.things]
    firsts = [i for i, noun in enumerate(nouns) if noun not in nouns[:i]]
    if rng.random() < 0.5:
        firsts.reverse()
    named, located, related = _arranged(scene, firsts, rng, aspect, rich)
    if aspect not in (None, "background", "relation") and changed not in named:
        named, located = [*named[:-1], changed], set()
    sized = {changed} if aspect == "size" else set[int]()
    # Two of a kind are often said without their size, as people ask for them.
    if len(scene.things) < 3 and (rich or rng.random() < (0.4 if scene.kind == "group" else 0.8)):
        sized |= {i for i in named if rng.random() < 0.75} or {named[0]}
    background = aspect == "background" or rng.random() < (0.5 if rich else 0.16)
    return Plan(tuple(named), frozenset(sized), frozenset(located), related, background)


# Cumulative shares of captions of two things that place one of them, place both, or say how they are placed to each
# other. Placing one thing is easier to learn, so it is common.
_OF_TWO = {"twins": (0.55, 0.65, 1.0), "plain": (0.15, 0.35, 0.75), "rich": (0.0, 0.2, 0.95)}


def _arranged(
    scene: Scene, firsts: list[int], rng: np.random.Generator, aspect: Aspect | None, rich: bool
) -> tuple[list[int], set[int], bool]:
    """Which things to name, which of them to place, and whether to say how two are placed to each other."""
    form = rng.random()
    if scene.kind == "single":
        return firsts, {0} if aspect == "location" or form < (0.85 if rich else 0.6) else set(), False
    if scene.kind == "pair":
        place_one, place_both, relate = _OF_TWO[
            "twins" if aspect == "relation" else "rich" if rich else "plain"
        ]
        if form < place_one:
            return firsts[:1], set(firsts[:1]), False
        if form < place_both:
            return firsts, set(firsts), False
        return (firsts[:1] if form >= max(relate, 0.92) and not rich else firsts), set(), form < relate
    if scene.kind == "group":
        copied = [i for i in firsts if scene.things[i].noun == scene.things[-1].noun]  # the copies come last
        return copied if form < (0.15 if rich else 0.25) else firsts, set(), False
    if rich or form > 0.4:
        return firsts, set(), False
    if len(firsts) > 2 and form < 0.15:
        return firsts[:2], set(), False
    # A thing that grows moves a little, so the word for its place may change.
    return firsts[:1], set(firsts[:1]) if form < 0.28 and aspect != "size" else set(), False


def claims(scene: Scene, rng: np.random.Generator) -> Claim:
    """A random claim that is true of the scene."""
    return plan(scene, rng).claim(scene)


def altered(
    claim: Claim, aspect: Aspect, scene: Scene, nouns: Sequence[str], rng: np.random.Generator
) -> Claim | None:
    """The claim with one thing of that aspect changed, so that it is false. None if it says nothing of that aspect.

    A noun is replaced by one of `nouns` that is not in the scene. A relation becomes its opposite.
    """
    if aspect == "background":
        if claim.background is None:
            return None
        others = [b for b in BACKGROUNDS if b not in (scene.background, claim.background)]
        return replace(claim, background=pick(rng, others))
    if aspect == "relation":
        return replace(claim, relation=OPPOSITE[claim.relation]) if claim.relation else None
    # If two things have a place each, changing one would put both on one side, which no true caption says.
    says: dict[Aspect, Callable[[Mention], bool]] = {
        "noun": lambda m: True,
        "count": lambda m: m.count > 1,
        "size": lambda m: m.size is not None,
        "location": lambda m: m.location is not None and len(claim.things) == 1,
    }
    fitting = [i for i, mention in enumerate(claim.things) if says[aspect](mention)]
    if not fitting:
        return None
    index = pick(rng, fitting)
    mention = claim.things[index]
    if aspect == "noun":
        present = {thing.noun for thing in scene.things} | {m.noun for m in claim.things}
        new = replace(mention, noun=pick(rng, [noun for noun in nouns if noun not in present]))
    elif aspect == "count":
        new = replace(mention, count=pick(rng, [c for c in COUNTS if c != mention.count]))
    elif aspect == "size":
        new = replace(mention, size="small" if mention.size == "large" else "large")
    else:
        thing = next(t for t in scene.things if t.noun == mention.noun)
        new = replace(mention, location=pick(rng, [p for p in LOCATIONS if not is_at(thing, p)]))
    return replace(claim, things=(*claim.things[:index], new, *claim.things[index + 1 :]))


NUM_CHOICES = 7


def choices(rng: np.random.Generator) -> tuple[float, ...]:
    """Numbers in [0, 1) that decide the wording of one caption."""
    return tuple(rng.random(NUM_CHOICES).tolist())


def phrase(
    claim: Claim,
    rng: np.random.Generator,
    templates: Templates = "train",
    plurals: dict[str, str] | None = None,
) -> str:
    """The claim in words, in one of many ways. "unseen" uses templates that training never uses."""
    return word(claim, choices(rng), templates, plurals)


def word(
    claim: Claim,
    wording: Sequence[float],
    templates: Templates = "train",
    plurals: dict[str, str] | None = None,
) -> str:
    """The claim in the words that the numbers of `choices` decide."""
    plurals = load_sprites().plurals if plurals is None else plurals
    template, behind, place, across, *sizes = wording
    names = [_name(m, at, plurals) for m, at in zip(claim.things, sizes, strict=False)]
    places = [_choose(_PLACES[m.location], place) if m.location else "" for m in claim.things]
    if claim.relation:
        form = _RELATED[claim.relation in ("above", "below")]
        d, o = _choose(_WAYS[claim.relation], across), _choose(_WAYS[OPPOSITE[claim.relation]], across)
        text = _choose(form[templates], template).format(a=names[0], b=names[1], d=d, o=o)
    elif all(places):
        form = (_ONE_PLACED, _TWO_PLACED)[len(names) - 1]
        text = _choose(form[templates], template).format(a=names[0], b=names[-1], p=places[0], q=places[-1])
    else:
        form = (_ONE, _TWO, _THREE)[len(names) - 1]
        text = _choose(form[templates], template).format(*names)
    if claim.background is None:
        return text
    return _choose(_BEFORE[templates], behind).format(
        x=text, g=_GROUNDS.get(claim.background, claim.background)
    )


def tags(claim: Claim, rng: np.random.Generator, plurals: dict[str, str] | None = None) -> str:
    """The things of the claim as single words in any order, like tags on the web."""
    plurals = load_sprites().plurals if plurals is None else plurals
    words = [plurals[m.noun] if m.count > 1 else m.noun for m in claim.things]
    if claim.background is not None:
        words.append(claim.background)
    return " ".join(words[i] for i in rng.permutation(len(words)).tolist())


def _choose(items: Sequence[str], at: float) -> str:
    return items[int(at * len(items))]


def _name(mention: Mention, at: float, plurals: dict[str, str]) -> str:
    """ "a tiny fox", "three foxes" """
    noun, plural = mention.noun, plurals[mention.noun]
    if mention.size:
        size = _choose(_SIZES[mention.size], at)
        noun, plural = f"{size} {noun}", f"{size} {plural}"
    if mention.count > 1:
        return f"{_NUMBERS[mention.count]} {plural}"
    if plural == noun and noun.endswith("s"):  # scissors, glasses
        return noun
    return an(noun)


# In all tables, entries at the same place have the same wording, so that one choice gives the same words.
_NUMBERS = {2: "two", 3: "three", 4: "four"}
_SIZES: dict[Size, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "large": ("large", "big", "huge"),
}
# Some place a single thing with words for relations, so that their meaning can be learned from one thing.
_PLACES: dict[Location, tuple[str, ...]] = {
    "left": ("on the left", "at the left side", "on the left side", "left of the center", "to the left"),
    "right": (
        "on the right",
        "at the right side",
        "on the right side",
        "right of the center",
        "to the right",
    ),
    "top": ("at the top", "in the upper part", "near the top", "above the center", "over the center"),
    "bottom": (
        "at the bottom",
        "in the lower part",
        "near the bottom",
        "below the center",
        "under the center",
    ),
    "middle": ("in the middle", "in the center", "at the center", "near the center", "in the very middle"),
}
_WAYS: dict[Relation, tuple[str, ...]] = {
    "left": ("left",),
    "right": ("right",),
    "above": ("above", "above", "over"),
    "below": ("below", "below", "under"),
}
_GROUNDS = {"night sky": "a night sky", "sunset": "a sunset"}

_ONE: dict[Templates, tuple[str, ...]] = {
    "train": (
        "{0}",
        "a picture of {0}",
        "a drawing of {0}",
        "you can see {0}",
        "here we see {0}",
        "look at {0}",
    ),
    "unseen": ("here you can see {0}", "look at a drawing of {0}", "we see a picture of {0}"),
}
_TWO: dict[Templates, tuple[str, ...]] = {
    "train": (
        "{0} and {1}",
        "{0}, {1}",
        "{0} with {1}",
        "a picture of {0} and {1}",
        "you can see {0} and {1}",
    ),
    "unseen": ("a drawing of {0} with {1}", "here we see {0} and {1}", "look at {0} and {1}"),
}
_THREE: dict[Templates, tuple[str, ...]] = {
    "train": (
        "{0}, {1} and {2}",
        "{0} and {1} and {2}",
        "a picture of {0}, {1} and {2}",
        "{0} with {1} and {2}",
    ),
    "unseen": ("here we see {0} with {1} and {2}", "you can see {0}, {1}, {2}"),
}
_ONE_PLACED: dict[Templates, tuple[str, ...]] = {
    "train": ("{a} {p}", "{p} {a}", "{a} placed {p}", "a picture with {a} {p}", "{p} you can see {a}"),
    "unseen": ("you can see {a} placed {p}", "{p} we see {a}"),
}
_TWO_PLACED: dict[Templates, tuple[str, ...]] = {
    "train": ("{a} {p} and {b} {q}", "{a} {p}, {b} {q}", "{p} {a}, {q} {b}", "{p} {a} and {q} {b}"),
    "unseen": ("{p} you can see {a} and {q} {b}", "a picture with {a} {p} and {b} {q}"),
}
_BESIDE: dict[Templates, tuple[str, ...]] = {
    "train": (
        "{a} to the {d} of {b}",
        "{b} to the {o} of {a}",
        "{a} {d} of {b}",
        "{b} {o} of {a}",
        "{b} with {a} on its {d}",
        "{a} with {b} on its {o}",
        "there is {a} {d} of {b}",
        "there is {b} {o} of {a}",
    ),
    "unseen": ("you can see {a} to the {d} of {b}", "on the {d} of {b} there is {a}"),
}
_STACKED: dict[Templates, tuple[str, ...]] = {
    "train": (
        "{a} {d} {b}",
        "{b} {o} {a}",
        "{a} placed {d} {b}",
        "{b} placed {o} {a}",
        "{b} with {a} {d} it",
        "{a} with {b} {o} it",
        "there is {a} {d} {b}",
        "there is {b} {o} {a}",
    ),
    "unseen": ("you can see {a} {d} {b}", "{d} {b} there is {a}"),
}
_RELATED = (_BESIDE, _STACKED)
_BEFORE: dict[Templates, tuple[str, ...]] = {
    "train": ("{x} on {g}", "{x} in front of {g}", "{x} against {g}", "{x} with {g} behind", "on {g}, {x}"),
    "unseen": ("in front of {g}, {x}", "{x} and {g} behind"),
}
