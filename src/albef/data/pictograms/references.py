"""Phrases for one of several things (`pictograms:grounding`), and images with five captions (`pictograms:retrieval`)."""

from __future__ import annotations

import numpy as np

from albef.data.pictograms.captions import Claim, Mention, Plan, claims, meaning
from albef.data.pictograms.chance import pick
from albef.data.pictograms.scenes import Scene
from albef.data.pictograms.things import Thing, location
from albef.data.pictograms.world import World, single_nouns
from albef.data.records import Box, Naming, Record, stable_id

CAPTIONS = 5
MOST_NAMED = 3  # things in a caption


def grounding_record(world: World, index: int, epoch: int) -> Record:
    """Phrase number `index` of that epoch, the box of the thing it means, and the boxes of all things as proposals."""
    rng = world.generator("grounding", epoch, index)
    scene = world.scene(
        rng, lambda scene: len(scene.things) > 1 and bool(single_nouns(scene)), ("pair", "group", "mixed")
    )
    noun = pick(rng, single_nouns(scene))
    thing = next(thing for thing in scene.things if thing.noun == noun)
    told, where = rng.random(), location(thing)
    size = thing.size if told < 0.4 and len(scene.things) == 2 else None
    mention = Mention(noun, 1, size, where if told >= 0.7 else None)

    origin = f"pictograms:grounding, {world.split}, seed {world.seed}, epoch {epoch}, phrase {index}"
    return Record(
        image=world.paint(scene),
        captions=(world.phrase(Claim((mention,)), rng),),
        image_id=stable_id(origin),
        caption_ids=None,
        origin=origin,
        key=str(index),
        box=box_of(world, thing),
        proposals=tuple(box_of(world, other) for other in scene.things),
        naming=naming_of(world, scene, world.generator("naming", epoch, index)),
    )


def box_of(world: World, thing: Thing) -> Box:
    """The thing's box in pixels."""
    left, top, right, bottom = (world.image_size * side for side in thing.box)
    return left, top, right - left, bottom - top


def naming_of(world: World, scene: Scene, rng: np.random.Generator) -> Naming | None:
    """A caption of two or three things that the scene has once each. None if there are fewer than two."""
    single = [i for i, thing in enumerate(scene.things) if thing.noun in single_nouns(scene)]
    if len(single) < 2:
        return None
    named = tuple(rng.permutation(single)[:MOST_NAMED].tolist())
    related, background = len(named) == 2 and rng.random() < 0.5, rng.random() < 0.16
    claim = Plan(named, related=related, background=background).claim(scene)
    things = tuple((scene.things[i].noun, box_of(world, scene.things[i])) for i in named)
    return Naming(world.phrase(claim, rng), things)


def retrieval_record(world: World, index: int, epoch: int) -> Record:
    """Image number `index` of that epoch with five true captions."""
    rng = world.generator("retrieval", epoch, index)
    scene = world.scene(rng, lambda scene: True)
    claimed = [claims(scene, rng) for _ in range(CAPTIONS)]
    origin = f"pictograms:retrieval, {world.split}, seed {world.seed}, epoch {epoch}, picture {index}"
    return Record(
        image=world.paint(scene),
        captions=tuple(world.phrase(claim, rng) for claim in claimed),
        image_id=stable_id(origin),
        caption_ids=tuple(meaning(claim) for claim in claimed),
        origin=origin,
    )
