"""Pictograms as image–text pairs for training, as galleries for testing, and foils of their captions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from albef.config import UserError
from albef.data.pictograms.captions import (
    Claim,
    Plan,
    altered,
    choices,
    claims,
    holds,
    meaning,
    phrase,
    plan,
    tags,
    templates_of,
    word,
)
from albef.data.pictograms.chance import generator, pick
from albef.data.pictograms.painting import Painter
from albef.data.pictograms.scenes import ASPECTS, Aspect, Couple, Scene, Scenes
from albef.data.pictograms.sprites import SpriteBank, load_sprites


@dataclass(frozen=True, slots=True)
class Item:
    """An image, uint8 [S, S, 3] RGB, with its caption.

    `claim` and `meaning` belong to `caption`. If it is `noisy`, they may be false, and `clean_caption` is the caption
    without noise.
    """

    image: np.ndarray
    caption: str
    clean_caption: str
    claim: Claim
    scene: Scene
    meaning: int
    noisy: bool


# Captions that are true of one scene only are longer than everyday ones. Training shows some of them too.
_RICH_SHARE = 0.4


class Pictograms:
    """`count` image–text pairs of a split, new ones in every epoch. Pairs 2k and 2k+1 are often twins.

    `caption_noise` is the share of captions like those on the web: tags, one thing only, something wrong, or the
    caption of another image. For the other settings see `Scenes`.
    """

    def __init__(
        self,
        split: str = "train",
        seed: int = 0,
        count: int = 20000,
        num_nouns: int = 24,
        image_size: int = 64,
        caption_noise: float = 0.0,
        mix: Mapping[str, float] | None = None,
        twin_share: float = 0.5,
        twins_from_epoch: int = 0,
        twin_aspects: Sequence[Aspect] = ASPECTS,
        bank: SpriteBank | None = None,
    ):
        bank = bank or load_sprites()
        self.split, self.seed, self.count, self.caption_noise = split, seed, count, caption_noise
        self._scenes = Scenes(split, seed, num_nouns, mix, twin_share, twins_from_epoch, twin_aspects, bank)
        self._painter = Painter(image_size, bank)
        self._plurals = bank.plurals
        self._templates = templates_of(split)
        self._last: tuple[tuple[int, int], Couple] | None = None
        self.nouns = self._scenes.nouns

    def __len__(self) -> int:
        return self.count

    def item(self, index: int, epoch: int = 0) -> Item:
        """Pair number `index` of that epoch. It is always the same."""
        scene, claim, wording = self._said(index, epoch)
        clean = word(claim, wording, self._templates, self._plurals)
        caption, noisy = clean, False
        if self.caption_noise:
            rng = generator("noise", self.split, self.seed, epoch, index)
            noisy = rng.random() < self.caption_noise
            if noisy:
                claim, caption = self._noise(scene, claim, wording, rng)
        return Item(self._painter.paint(scene), caption, clean, claim, scene, meaning(claim), noisy)

    def captions(self, index: int, epoch: int = 0, count: int = 3) -> list[str]:
        """Several true captions of the image. The first is the clean one of `item`."""
        scene, claim, wording = self._said(index, epoch)
        rng = generator("more captions", self.split, self.seed, epoch, index)
        more = (phrase(claims(scene, rng), rng, self._templates, self._plurals) for _ in range(count - 1))
        return [word(claim, wording, self._templates, self._plurals), *more]

    def _said(self, index: int, epoch: int) -> tuple[Scene, Claim, tuple[float, ...]]:
        """A scene, the claim of its caption, and the wording, which is the same for twins."""
        number, second = divmod(index, 2)
        if self._last is None or self._last[0] != (number, epoch):
            self._last = (number, epoch), self._scenes.couple(number, epoch)
        couple = self._last[1]
        key = ("caption", self.split, self.seed, epoch, number)
        rng = generator(*key) if couple.change else generator(*key, second)
        rich = rng.random() < _RICH_SHARE
        planned = plan(couple.scenes[0 if couple.change else second], rng, couple.change, rich)
        scene = couple.scenes[second]
        return scene, planned.claim(scene), choices(rng)

    def _noise(
        self, scene: Scene, claim: Claim, wording: tuple[float, ...], rng: np.random.Generator
    ) -> tuple[Claim, str]:
        """A caption like those on the web, and its claim."""
        form = rng.random()
        firsts = tuple(
            i for i, thing in enumerate(scene.things) if all(t.noun != thing.noun for t in scene.things[:i])
        )
        if form < 0.3:
            claim = Plan(firsts, background=rng.random() < 0.4).claim(scene)
            return claim, tags(claim, rng, self._plurals)
        if form < 0.5:
            claim = Plan((pick(rng, firsts),)).claim(scene)
        elif form < 0.8:
            aspects: tuple[Aspect, ...] = ("size", "background", "noun")
            wrong = [altered(claim, aspect, scene, self.nouns, rng) for aspect in aspects]
            claim = pick(rng, [c for c in wrong if c is not None])
        else:
            scene, claim, wording = self._said(int(rng.random() * 2**31), -1)
        return claim, word(claim, wording, self._templates, self._plurals)


@dataclass(frozen=True)
class Gallery:
    """Scenes with one caption each, true of this scene only. `images` is uint8 [N, S, S, 3], RGB."""

    split: str
    scenes: list[Scene]
    images: np.ndarray
    captions: list[str]
    claims: list[Claim]
    wordings: list[tuple[float, ...]]
    nouns: tuple[str, ...]
    plurals: dict[str, str]


@dataclass(frozen=True, slots=True)
class Foil:
    """The caption of scene `index` with one thing changed, so that it is false."""

    index: int
    kind: Aspect
    caption: str


def gallery(
    split: str = "test",
    seed: int = 0,
    count: int = 500,
    num_nouns: int = 24,
    image_size: int = 64,
    mix: Mapping[str, float] | None = None,
    bank: SpriteBank | None = None,
) -> Gallery:
    """A test gallery. Each caption is true of its own scene only, so only this scene counts as right.

    Raises `UserError` if there are too few nouns to give so many scenes different captions.
    """
    bank = bank or load_sprites()
    source = Scenes(split, seed, num_nouns, mix, twin_share=0.0, bank=bank)
    scenes = [source.scene(index) for index in range(count)]
    drawn = count
    rng = generator("gallery", split, seed)
    said = [claims(scene, rng) for scene in scenes]
    for attempt in range(_ROUNDS):
        index = _Index(scenes)
        ambiguous = [i for i, claim in enumerate(said) if index.is_ambiguous(claim, i)]
        if not ambiguous:
            break
        for i in ambiguous:
            unique = _unique_claim(scenes, i, index, rng)
            if unique is None:  # no caption is unique: take another scene, of the same kind if possible
                kind = scenes[i].kind
                while (new := source.scene(drawn)).kind != kind and attempt < 8:
                    drawn += 1
                drawn += 1
                scenes[i], unique = new, claims(new, rng)
            said[i] = unique
    else:
        raise UserError(
            f"{count} scenes of {num_nouns} nouns cannot each have a caption of their own: "
            f"set a smaller count or a larger data.num_nouns."
        )
    wordings = [choices(rng) for _ in scenes]
    captions = [word(c, w, templates_of(split), bank.plurals) for c, w in zip(said, wordings, strict=True)]
    painter = Painter(image_size, bank)
    images = np.stack([painter.paint(scene) for scene in scenes])
    return Gallery(split, scenes, images, captions, said, wordings, source.nouns, bank.plurals)


_ROUNDS = 40


class _Index:
    """Finds scenes for which a claim may be true, by their counts of things, so that few must be checked."""

    def __init__(self, scenes: list[Scene]):
        self._scenes = scenes
        self._having: dict[tuple[str, int], set[int]] = {}
        for i, scene in enumerate(scenes):
            nouns = [thing.noun for thing in scene.things]
            for noun in set(nouns):
                self._having.setdefault((noun, nouns.count(noun)), set()).add(i)

    def is_ambiguous(self, claim: Claim, scene: int) -> bool:
        """Whether a claim about this scene is true of another one."""
        having = [self._having.get((m.noun, m.count), set[int]()) for m in claim.things]
        return any(i != scene and holds(claim, self._scenes[i]) for i in set.intersection(*having))


def _unique_claim(scenes: list[Scene], i: int, index: _Index, rng: np.random.Generator) -> Claim | None:
    """A claim that is true of scene `i` alone: an everyday one, else with more details, else with the background."""
    for attempt in range(24):
        planned = plan(scenes[i], rng, rich=attempt >= 6)
        claim = (replace(planned, background=attempt >= 16) if attempt >= 6 else planned).claim(scenes[i])
        if not index.is_ambiguous(claim, i):
            return claim
    return None


def foils(gallery: Gallery, seed: int = 0, kinds: Iterable[Aspect] = ASPECTS) -> list[Foil]:
    """At most one foil of each kind for each caption, with the same wording except for the change."""
    found = []
    for i, (scene, claim, wording) in enumerate(
        zip(gallery.scenes, gallery.claims, gallery.wordings, strict=True)
    ):
        for kind in kinds:
            false = altered(claim, kind, scene, gallery.nouns, generator("foil", seed, i, kind))
            if false is not None:
                assert not holds(false, scene)
                found.append(
                    Foil(i, kind, word(false, wording, templates_of(gallery.split), gallery.plurals))
                )
    return found
