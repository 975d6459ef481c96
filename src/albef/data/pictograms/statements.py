"""Sentences about one image (`pictograms:entailment`) and statements about two (`pictograms:nlvr`).

The words alone reveal as little as possible: every form of a sentence is right as often as it is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from albef.data.pictograms.captions import altered, claims, holds, templates_of
from albef.data.pictograms.chance import pick
from albef.data.pictograms.layouts import Kind
from albef.data.pictograms.scenes import ASPECTS, Aspect, Scene
from albef.data.pictograms.things import an
from albef.data.pictograms.world import World, counted
from albef.data.records import Record, stable_id
from albef.data.rows import ENTAILMENT_LABELS

# Facts that an image cannot show.
HIDDEN = ("old", "new", "cheap", "lost", "famous", "wet")


def entailment_record(world: World, index: int, epoch: int) -> Record:
    """Sentence number `index` of that epoch about its image, with a label as in `ENTAILMENT_LABELS`."""
    rng = world.generator("entailment", epoch, index)
    # Half of all sentences are wrong, a quarter right, a quarter open. So a sentence is wrong in half of the cases,
    # whether it says something invisible or not.
    draw = rng.random()
    label = "contradiction" if draw < 0.5 else "neutral" if draw < 0.75 else "entailment"
    scene = world.scene(rng, lambda scene: True)
    claim = claims(scene, rng)
    if label == "contradiction":
        wrong = None
        while wrong is None or holds(wrong, scene):
            aspects: tuple[Aspect, ...] = ASPECTS
            wrong = altered(claim, pick(rng, aspects), scene, world.nouns, rng)
        claim = wrong
    sentence = world.phrase(claim, rng)
    if label == "neutral" or (label == "contradiction" and rng.random() < 0.5):
        mention = pick(rng, claim.things)
        name = world.plurals[mention.noun] if mention.count > 1 else mention.noun
        joined = {"train": ",", "unseen": " and"}[templates_of(world.split)]
        sentence += f"{joined} the {name} {'are' if mention.count > 1 else 'is'} {pick(rng, HIDDEN)}"
    origin = f"pictograms:entailment, {world.split}, seed {world.seed}, epoch {epoch}, sentence {index}"
    return Record(
        image=world.paint(scene),
        captions=(sentence,),
        image_id=stable_id(origin),
        caption_ids=None,
        origin=origin,
        label=ENTAILMENT_LABELS.index(label),
        key=str(index),
    )


class Stated(NamedTuple):
    """A statement, two images that it is true of, and two that it is false of."""

    statement: str
    true: tuple[Scene, Scene]
    false: tuple[Scene, Scene]


def both(world: World, rng: np.random.Generator) -> Stated:
    """Both images show a fox. If false, only one of them does."""
    noun = pick(rng, world.nouns)
    first, second, without = having(world, rng, noun), having(world, rng, noun), lacking(world, rng, noun)
    kept = having(world, rng, noun)
    false = (kept, without) if rng.random() < 0.5 else (without, kept)
    return Stated(f"{an(noun)} in the left picture and in the right picture", (first, second), false)


def one_side(world: World, rng: np.random.Generator) -> Stated:
    """The left image shows a fox. If false, only the right one does."""
    noun, left = pick(rng, world.nouns), rng.random() < 0.5
    pairs = [(having(world, rng, noun), lacking(world, rng, noun)) for _ in range(2)]
    true = pairs[0] if left else pairs[0][::-1]
    false = pairs[1][::-1] if left else pairs[1]
    side = "left" if left else "right"
    return Stated(f"here we see {an(noun)} in the {side} picture", true, false)


def one_each(world: World, rng: np.random.Generator) -> Stated:
    """A fox is in one image and a car in the other. If false, one of the two is missing."""
    a, b = (world.nouns[int(i)] for i in rng.permutation(len(world.nouns))[:2])
    true = (having(world, rng, a, b), having(world, rng, b, a))
    neither = world.scene(rng, lambda scene: not counted(scene, a) and not counted(scene, b), SHORT)
    false = (having(world, rng, a, b), neither) if rng.random() < 0.5 else (neither, having(world, rng, b, a))
    true = true if rng.random() < 0.5 else true[::-1]
    return Stated(f"{an(a)} in one picture and {an(b)} in the other", true, false)


SHORT: tuple[Kind, ...] = ("single", "pair", "group")
FORMS: tuple[Callable[[World, np.random.Generator], Stated], ...] = (both, one_side, one_each)


def having(world: World, rng: np.random.Generator, noun: str, without: str = "") -> Scene:
    """A scene with the noun, and without the other one."""
    return world.scene_with(
        rng, noun, lambda scene: not counted(scene, noun) and not counted(scene, without), SHORT
    )


def lacking(world: World, rng: np.random.Generator, noun: str) -> Scene:
    """A scene without the noun."""
    return world.scene(rng, lambda scene: not counted(scene, noun), SHORT)


def nlvr_record(world: World, index: int, epoch: int) -> Record:
    """Record `index` of that epoch. Records 2k and 2k+1 share a statement, which is true for one of them."""
    number, second = divmod(index, 2)
    rng = world.generator("nlvr", epoch, number)
    stated = pick(rng, FORMS)(world, rng)
    true = (rng.random() < 0.5) == bool(second)
    scenes = stated.true if true else stated.false
    origin = f"pictograms:nlvr, {world.split}, seed {world.seed}, epoch {epoch}, statement {index}"
    return Record(
        image=world.paint(scenes[0]),
        captions=(stated.statement,),
        image_id=stable_id(origin),
        caption_ids=None,
        origin=origin,
        second_image=world.paint(scenes[1]),
        label=int(true),
        key=f"{world.split}-{number}-{second}-0",
    )
