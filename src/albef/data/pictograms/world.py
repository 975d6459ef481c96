"""What the pictogram versions of all tasks share: scenes of a split, their images, and random draws by key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from albef.config import UserError
from albef.data.pictograms.captions import Claim, phrase, templates_of
from albef.data.pictograms.chance import generator, pick
from albef.data.pictograms.layouts import Kind
from albef.data.pictograms.painting import Painter
from albef.data.pictograms.scenes import Scene, Scenes
from albef.data.pictograms.sprites import load_sprites
from albef.data.pictograms.things import an

TRIES = 2000


class World:
    """Random scenes of a split that meet a condition, names of things, and images."""

    def __init__(self, split: str, seed: int, num_nouns: int, image_size: int) -> None:
        self.split, self.seed, self.image_size = split, seed, image_size
        self._scenes = Scenes(split, seed, num_nouns, twin_share=0.0)
        self._painter = Painter(image_size)
        self.nouns, self.plurals = self._scenes.nouns, load_sprites().plurals

    def generator(self, task: str, epoch: int, index: int) -> np.random.Generator:
        """A generator that depends on the split, the task and the number of a record alone."""
        return generator(task, self.split, self.seed, epoch, index)

    def scene(
        self, rng: np.random.Generator, fits: Callable[[Scene], bool], kinds: tuple[Kind, ...] = ()
    ) -> Scene:
        """A scene of one of the kinds (any kind if none is named) for which `fits` is true."""
        for _ in range(TRIES):
            scene = self._scenes.draw(rng)
            if (not kinds or scene.kind in kinds) and fits(scene):
                return scene
        raise UserError(f"Split {self.split} of pictograms has no such scene. Set a larger data.num_nouns.")

    def scene_with(
        self, rng: np.random.Generator, noun: str, fits: Callable[[Scene], bool], kinds: tuple[Kind, ...] = ()
    ) -> Scene:
        """A scene from `scene`, in which the noun replaces another one."""
        for _ in range(TRIES):
            before = self.scene(rng, fits, kinds)
            changed = self.with_noun(before, pick(rng, before.things).noun, noun, rng)
            if changed is not None:
                return changed
        raise UserError(
            f"Split {self.split} of pictograms has no scene with {an(noun)}. Choose another split."
        )

    def with_noun(self, scene: Scene, old: str, new: str, rng: np.random.Generator) -> Scene | None:
        """The scene with a noun's drawings replaced by others. None if the split does not allow it."""
        if any(thing.noun == new for thing in scene.things):
            return None
        sprite = self._scenes.sprite(new, rng)
        things = tuple(
            replace(thing, noun=new, vendor=sprite.vendor, variant=sprite.variant)
            if thing.noun == old
            else thing
            for thing in scene.things
        )
        changed = replace(scene, things=things)
        return changed if self._scenes.allows(changed) else None

    def phrase(self, claim: Claim, rng: np.random.Generator) -> str:
        """The claim in words of the split, in one of many ways."""
        return phrase(claim, rng, templates_of(self.split), self.plurals)

    def paint(self, scene: Scene) -> np.ndarray:
        """The image, uint8 [image_size, image_size, 3], RGB."""
        return self._painter.paint(scene)


def counted(scene: Scene, noun: str) -> int:
    """How many of that noun there are."""
    return sum(thing.noun == noun for thing in scene.things)


def single_nouns(scene: Scene) -> list[str]:
    """Nouns of which there is exactly one."""
    return [thing.noun for thing in scene.things if counted(scene, thing.noun) == 1]
