"""Phrases for one thing of several (`pictograms:grounding`); pictures with five captions (`pictograms:retrieval`)."""

from __future__ import annotations

from albef.data.pictograms.captions import Claim, Mention, claims, meaning
from albef.data.pictograms.chance import pick
from albef.data.pictograms.things import location
from albef.data.pictograms.world import World, single_nouns
from albef.data.records import Box, Record, stable_id

CAPTIONS = 5


def grounding_record(world: World, index: int, epoch: int) -> Record:
    """Phrase number `index` of that epoch, the box of what it means, and the boxes of all things as proposals."""
    rng = world.generator("grounding", epoch, index)
    scene = world.scene(
        rng, lambda scene: len(scene.things) > 1 and bool(single_nouns(scene)), ("pair", "group", "mixed")
    )
    noun = pick(rng, single_nouns(scene))
    thing = next(thing for thing in scene.things if thing.noun == noun)
    told, where = rng.random(), location(thing)
    size = thing.size if told < 0.4 and len(scene.things) == 2 else None
    mention = Mention(noun, 1, size, where if told >= 0.7 else None)

    def box(sides: tuple[float, float, float, float]) -> Box:
        left, top, right, bottom = (world.image_size * side for side in sides)
        return left, top, right - left, bottom - top

    origin = f"pictograms:grounding, {world.split}, seed {world.seed}, epoch {epoch}, phrase {index}"
    return Record(
        image=world.paint(scene),
        captions=(world.phrase(Claim((mention,)), rng),),
        image_id=stable_id(origin),
        caption_ids=None,
        origin=origin,
        key=str(index),
        box=box(thing.box),
        proposals=tuple(box(other.box) for other in scene.things),
    )


def retrieval_record(world: World, index: int, epoch: int) -> Record:
    """Picture number `index` of that epoch with five true captions."""
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
