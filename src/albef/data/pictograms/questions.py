"""Questions about scenes, with answers that are true by construction (`pictograms:vqa`).

The answer is drawn before the scene, so that the question alone reveals as little as possible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from albef.data.pictograms.chance import pick
from albef.data.pictograms.scenes import BACKGROUNDS, Scene
from albef.data.pictograms.things import LOCATIONS, OPPOSITE, Location, Relation, Size, an, lies, location
from albef.data.pictograms.world import World, counted, single_nouns
from albef.data.records import Record, stable_id

NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
SIZES: tuple[Size, ...] = ("small", "large")
RELATIONS: dict[Relation, str] = {
    "left": "to the left of",
    "right": "to the right of",
    "above": "above",
    "below": "below",
}
PLACES: dict[Location, str] = {
    "left": "on the left",
    "right": "on the right",
    "top": "at the top",
    "bottom": "at the bottom",
    "middle": "in the middle",
}


class Asked(NamedTuple):
    """A question about a scene, and its answer."""

    scene: Scene
    question: str
    answer: str


def existence(world: World, rng: np.random.Generator) -> Asked:
    """Is there a fox? yes, no"""
    noun, answer = pick(rng, world.nouns), pick(rng, ("yes", "no"))
    scene = world.scene(rng, lambda scene: counted(scene, noun) == 0)
    if answer == "yes":
        scene = world.scene_with(rng, noun, lambda scene: counted(scene, noun) == 0)
    return Asked(scene, f"is there {an(noun)}", answer)


def number(world: World, rng: np.random.Generator) -> Asked:
    """How many foxes are there? one, two, three, four"""
    count = pick(rng, (1, 2, 3, 4))
    scene = world.scene(rng, lambda scene: any(counted(scene, t.noun) == count for t in scene.things))
    noun = pick(rng, [thing.noun for thing in scene.things if counted(scene, thing.noun) == count])
    return Asked(scene, f"how many {world.plurals[noun]} are there", NUMBERS[count])


def place(world: World, rng: np.random.Generator) -> Asked:
    """Where is the fox? left, right, top, bottom, middle"""
    answer = pick(rng, LOCATIONS)
    scene = world.scene(rng, lambda scene: location(scene.things[0]) == answer, ("single",))
    return Asked(scene, f"where is the {scene.things[0].noun}", answer)


def size(world: World, rng: np.random.Generator) -> Asked:
    """Is the fox small or large?"""
    answer = pick(rng, SIZES)
    scene = world.scene(rng, lambda scene: scene.things[0].size == answer, ("single", "pair"))
    return Asked(scene, f"is the {scene.things[0].noun} small or large", answer)


def background(world: World, rng: np.random.Generator) -> Asked:
    """What is behind the fox? grass, sand, …"""
    answer = pick(rng, BACKGROUNDS)
    scene = world.scene(rng, lambda scene: scene.background == answer and bool(single_nouns(scene)))
    return Asked(scene, f"what is behind the {pick(rng, single_nouns(scene))}", answer)


def thing_at(world: World, rng: np.random.Generator) -> Asked:
    """What is on the left? fox, car, …"""
    where = pick(rng, LOCATIONS)
    scene = world.scene(rng, lambda scene: location(scene.things[0]) == where, ("single",))
    return Asked(scene, f"what is {PLACES[where]}", scene.things[0].noun)


def neighbour(world: World, rng: np.random.Generator) -> Asked:
    """What is to the left of the fox? car, …"""
    to: Relation = pick(rng, tuple(OPPOSITE))
    scene = world.scene(rng, lambda scene: lies(scene.things[0], scene.things[1], to), ("pair",))
    other, asked = (thing.noun for thing in scene.things)
    return Asked(scene, f"what is {RELATIONS[to]} the {asked}", other)


KINDS: dict[str, Callable[[World, np.random.Generator], Asked]] = {
    "existence": existence,
    "number": number,
    "place": place,
    "size": size,
    "background": background,
    "thing_at": thing_at,
    "neighbour": neighbour,
}


def question_record(world: World, index: int, epoch: int) -> Record:
    """Question number `index` of that epoch. Its key ends with its kind."""
    rng = world.generator("vqa", epoch, index)
    kind = pick(rng, tuple(KINDS))
    asked = KINDS[kind](world, rng)
    origin = f"pictograms:vqa, {world.split}, seed {world.seed}, epoch {epoch}, question {index}"
    return Record(
        image=world.paint(asked.scene),
        captions=(asked.question,),
        image_id=stable_id(origin),
        caption_ids=None,
        origin=origin,
        answers=(asked.answer,),
        answer_weights=(1.0,),
        key=f"{index}-{kind}",
    )
