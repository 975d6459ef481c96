from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albef.config import UserError
from albef.data.pictograms import painting
from albef.data.pictograms.painting import Painter, render
from albef.data.pictograms.scenes import (
    BACKGROUNDS,
    HELD_OUT_VENDOR,
    MIX,
    SPLITS,
    TRAINING_MIX,
    Scene,
    Scenes,
    background_is_held_out,
    pair_is_held_out,
)
from albef.data.pictograms.sprites import SpriteBank, load_sprites
from albef.data.pictograms.things import Thing, location, relation

BANK = load_sprites()
PAINTER, OTHER_PAINTER = Painter(48, BANK), Painter(48, BANK)

splits = st.sampled_from(SPLITS)
seeds = st.integers(0, 2**40)
numbers = st.integers(0, 10**9)
epochs = st.integers(0, 100)


def nouns_of(scene: Scene) -> Counter[str]:
    return Counter(thing.noun for thing in scene.things)


def novelties(scene: Scene) -> tuple[bool, bool, bool]:
    """Whether it has a vendor, a pair of nouns, a noun on a background that training must not show."""
    nouns = sorted(nouns_of(scene))
    return (
        any(thing.vendor == HELD_OUT_VENDOR for thing in scene.things),
        any(pair_is_held_out(a, b) for a, b in combinations(nouns, 2)),
        any(background_is_held_out(noun, scene.background) for noun in nouns),
    )


@settings(deadline=None, max_examples=60)
@given(splits, seeds, numbers, epochs)
def test_a_scene_depends_on_its_key_alone(split, seed, index, epoch):
    one, other = Scenes(split, seed, bank=BANK), Scenes(split, seed, bank=BANK)
    other.scene(index + 5)
    assert one.scene(index, epoch) == other.scene(index, epoch)
    assert one.scene(index, epoch) != one.scene(index, epoch + 1)
    assert np.array_equal(PAINTER.paint(one.scene(index)), OTHER_PAINTER.paint(other.scene(index)))


@settings(deadline=None, max_examples=150)
@given(splits, seeds, numbers, st.sampled_from([24, 60]))
def test_scenes_are_well_formed(split, seed, index, num_nouns):
    scenes = Scenes(split, seed, num_nouns, bank=BANK)
    scene = scenes.scene(index)
    assert scene.background in BACKGROUNDS
    assert 1 <= len(scene.things) <= 4
    for thing in scene.things:
        x0, y0, x1, y1 = thing.box
        assert 0 <= x0 < x1 <= 1
        assert 0 <= y0 < y1 <= 1
        assert x1 - x0 == pytest.approx(y1 - y0)
        assert thing.side >= 0.2999
        assert thing.noun in scenes.nouns
        assert thing.variant < len(BANK.images[thing.noun, thing.vendor])
    for a, b in combinations(scene.things, 2):
        distance = max(abs(a.centre[0] - b.centre[0]), abs(a.centre[1] - b.centre[1]))
        assert distance > 0.5 * (a.side + b.side) / 2  # they overlap slightly at most
        if a.noun == b.noun:
            assert (a.vendor, a.variant) == (b.vendor, b.variant)
        if {a.size, b.size} == {"small", "large"}:
            assert max(a.side, b.side) >= 1.34 * min(a.side, b.side)
    if scene.kind == "single":
        assert location(scene.things[0]) is not None
    if scene.kind == "pair":
        a, b = scene.things
        apart = sorted(abs(p - q) for p, q in zip(a.centre, b.centre, strict=True))
        assert a.noun != b.noun
        assert apart[0] <= 0.15
        assert apart[1] >= 0.32
        assert relation(a, b) is not None
        assert {location(a), location(b)} in ({"left", "right"}, {"top", "bottom"})
    if scene.kind == "group":
        assert 1 <= max(nouns_of(scene).values()) <= 4  # the twin of two of a kind has one
        assert len(nouns_of(scene)) <= 2
    if scene.kind == "mixed":
        assert len(nouns_of(scene)) == len(scene.things) in (2, 3)


@settings(deadline=None, max_examples=150)
@given(splits, seeds, numbers)
def test_each_split_has_its_own_novelty_and_no_other(split, seed, index):
    scene = Scenes(split, seed, bank=BANK).scene(index)
    assert novelties(scene) == (
        split == "unseen_vendor",
        split == "unseen_pair",
        split == "unseen_background",
    )
    if split == "unseen_vendor":
        assert all(thing.vendor == HELD_OUT_VENDOR for thing in scene.things)


def test_what_is_held_out_is_a_small_share_whatever_the_seed():
    nouns = BANK.nouns[:60]
    pairs = np.mean([pair_is_held_out(a, b) for a, b in combinations(nouns, 2)])
    backgrounds = np.mean([background_is_held_out(noun, b) for noun in nouns for b in BACKGROUNDS])
    assert 0.07 < pairs < 0.13
    assert 0.05 < backgrounds < 0.11
    assert pair_is_held_out("fox", "car") == pair_is_held_out("car", "fox")


def difference(a: Scene, b: Scene) -> set[str]:
    """The aspects in which two scenes differ, by their graphs."""
    found = set()
    if a.background != b.background:
        found.add("background")
    if len(a.things) != len(b.things):
        return found | {"count"} | ({"noun"} if set(nouns_of(a)) != set(nouns_of(b)) else set())
    pairs = list(zip(a.things, b.things, strict=True))
    if nouns_of(a) != nouns_of(b):
        assert sum((nouns_of(a) - nouns_of(b)).values()) in (1, max(nouns_of(a).values()))
        found.add("noun")
    if any(p.size != q.size for p, q in pairs):
        swapped = all(len({thing.size for thing in scene.things}) == 2 for scene in (a, b))
        assert sum(p.size != q.size for p, q in pairs) == 1 + swapped
        found.add("size")
    if a.kind == "single" and location(a.things[0]) != location(b.things[0]):
        found.add("location")
    if a.kind == "pair" and relation(*a.things) != relation(*b.things):
        found.add("relation")
    return found


@settings(deadline=None, max_examples=300)
@given(splits, seeds, numbers)
def test_twins_differ_in_exactly_one_thing(split, seed, number):
    couple = Scenes(split, seed, twin_share=1.0, bank=BANK).couple(number)
    a, b = couple.scenes
    if (
        couple.change is None
    ):  # a group of two can be the only scene of its sort with a noun unseen on a background
        assert split == "unseen_background"
        return
    assert difference(a, b) == {couple.change.aspect}
    assert (a.kind, a.texture_seed) == (b.kind, b.texture_seed)


def test_every_group_can_have_a_twin_of_another_count():
    scenes = Scenes(seed=4, mix={"group": 1.0}, twin_share=1.0, twin_aspects=("count",), bank=BANK)
    couples = [scenes.couple(number) for number in range(300)]
    assert all(couple.change and couple.change.aspect == "count" for couple in couples)
    copies = Counter(
        sum(thing.noun == scene.things[-1].noun for thing in scene.things)
        for couple in couples
        for scene in couple.scenes
    )
    assert set(copies) == {1, 2, 3, 4}
    assert copies[1] > 15
    assert copies[4] > 60
    assert min(copies[2], copies[3]) > 120


def test_shares_of_kinds_twins_and_aspects():
    scenes = Scenes(seed=3, bank=BANK)
    couples = [scenes.couple(number) for number in range(3000)]
    changes = Counter(couple.change.aspect for couple in couples if couple.change)
    assert 0.46 < sum(changes.values()) / len(couples) < 0.54
    assert set(changes) == {"noun", "count", "size", "background", "location", "relation"}
    tested = Scenes("test", seed=3, bank=BANK)
    drawn = {"train": [couple.scenes[0] for couple in couples], "test": list(map(tested.scene, range(3000)))}
    for split, mix in (("train", TRAINING_MIX), ("test", MIX)):
        kinds = Counter(scene.kind for scene in drawn[split])
        for kind, weight in mix.items():
            assert abs(kinds[kind] / 3000 - weight) < 0.03, (split, kind)
    only = Scenes(mix={"pair": 2.0, "single": 0.0}, bank=BANK)
    assert {only.scene(index).kind for index in range(50)} == {"pair"}
    alone = Scenes(twin_share=0.0, bank=BANK)
    assert not any(alone.couple(number).change for number in range(50))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"split": "tset"}, "tset"),
        ({"num_nouns": 7}, "num_nouns"),
        ({"num_nouns": 10**4}, "num_nouns"),
        ({"mix": {"singel": 1.0}}, "singel"),
        ({"mix": {"pair": -1.0, "single": 2.0}}, "mix"),
        ({"mix": {"pair": 0.0}}, "mix"),
        ({"split": "unseen_pair", "mix": {"single": 1.0}}, "unseen_pair"),
    ],
)
def test_impossible_settings_are_named(arguments, named):
    with pytest.raises(UserError, match=named):
        Scenes(bank=BANK, **arguments)


def one_thing(box: tuple[float, float, float, float], flipped: bool = False) -> Scene:
    return Scene((Thing("dot", "solid", 0, "small", box, flipped),), "snow", 1234567, "single")


def half_red_bank() -> SpriteBank:
    sprite = np.zeros((64, 64, 4), np.uint8)
    sprite[:, :32] = (255, 0, 0, 255)
    return SpriteBank(("dot",), {"dot": "dots"}, ("solid",), {("dot", "solid"): (sprite,)})


def test_a_drawing_is_painted_where_its_box_says_and_seen_through_where_transparent():
    bank = half_red_bank()
    empty = render(Scene((), "snow", 1234567, "single"), 40, bank).astype(int)
    picture = render(one_thing((0.25, 0.5, 0.75, 1.0)), 40, bank).astype(int)
    changed = np.abs(picture - empty).max(-1) > 40
    assert changed[20:40, 10:20].all()
    assert changed.sum() == 200
    red = picture[20:40, 10:20].reshape(-1, 3).mean(0)
    assert red[0] > 180
    assert red[1:].max() < 40
    flipped = (
        np.abs(render(one_thing((0.25, 0.5, 0.75, 1.0), True), 40, bank).astype(int) - empty).max(-1) > 40
    )
    assert flipped[20:40, 20:30].all()
    assert flipped.sum() == 200


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 0.7), st.floats(0, 0.7), st.floats(0.3, 1), st.sampled_from([16, 25, 40]))
def test_any_box_in_the_picture_can_be_painted(x, y, side, image_size):
    side = min(side, 1 - x, 1 - y)
    image = render(one_thing((x, y, x + side, y + side)), image_size, half_red_bank())
    assert image.shape == (image_size, image_size, 3)
    assert image.dtype == np.uint8


def test_backgrounds_look_different_and_vary():
    means = {}
    for background in BACKGROUNDS:
        pictures = [PAINTER.paint(Scene((), background, seed * 7919**4, "single")) for seed in range(1, 9)]
        assert len({picture.tobytes() for picture in pictures}) == 8
        means[background] = np.mean(pictures, axis=(0, 1, 2))
    for a, b in combinations(BACKGROUNDS, 2):
        assert np.abs(means[a] - means[b]).max() > 15, (a, b)


def test_the_drawings_that_are_kept_have_bounded_bytes(monkeypatch):
    monkeypatch.setattr(painting, "_MOST_KEPT_BYTES", 20_000)
    painter, scenes = Painter(48, BANK), Scenes("train", 0, 24)
    for index in range(60):
        scene = scenes.scene(index, 0)
        assert np.array_equal(painter.paint(scene), PAINTER.paint(scene))
        kept = sum(part.nbytes for drawing in painter._scaled.values() for part in drawing)
        assert kept <= 20_000 + 48 * 48 * 5
