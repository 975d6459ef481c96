import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albef.data.pictograms.captions import (
    Claim,
    Mention,
    altered,
    choices,
    claims,
    holds,
    meaning,
    phrase,
    plan,
    tags,
    word,
)
from albef.data.pictograms.chance import generator
from albef.data.pictograms.scenes import ASPECTS, SPLITS, Scene, Scenes
from albef.data.pictograms.sprites import load_sprites
from albef.data.pictograms.things import OPPOSITE, Thing

BANK = load_sprites()
PLURALS = {"fox": "foxes", "car": "cars", "owl": "owls", "unicorn": "unicorns", "scissors": "scissors"}


def thing(noun: str, x: float, y: float, size: str = "small") -> Thing:
    half = 0.16 if size == "small" else 0.26
    return Thing(noun, "a", 0, size, (x - half, y - half, x + half, y + half), False)


FOX_LEFT_OF_CAR = Scene((thing("fox", 0.25, 0.5), thing("car", 0.7, 0.55, "large")), "grass", 0, "pair")
THREE_FOXES = Scene(
    (thing("car", 0.25, 0.25), *(thing("fox", x, y) for x, y in ((0.75, 0.25), (0.25, 0.75), (0.75, 0.75)))),
    "snow",
    0,
    "group",
)


@pytest.mark.parametrize(
    ("claim", "scene", "true"),
    [
        (Claim((Mention("fox"),)), FOX_LEFT_OF_CAR, True),
        (Claim((Mention("owl"),)), FOX_LEFT_OF_CAR, False),
        (Claim((Mention("fox"), Mention("car")), "left"), FOX_LEFT_OF_CAR, True),
        (Claim((Mention("car"), Mention("fox")), "right"), FOX_LEFT_OF_CAR, True),
        (Claim((Mention("car"), Mention("fox")), "left"), FOX_LEFT_OF_CAR, False),
        (Claim((Mention("fox"), Mention("car")), "above"), FOX_LEFT_OF_CAR, False),
        (Claim((Mention("fox", size="small"),)), FOX_LEFT_OF_CAR, True),
        (Claim((Mention("car", size="small"),)), FOX_LEFT_OF_CAR, False),
        (Claim((Mention("fox", location="left"),)), FOX_LEFT_OF_CAR, True),
        (Claim((Mention("fox", location="middle"),)), FOX_LEFT_OF_CAR, False),
        (Claim((Mention("car", location="left"),)), FOX_LEFT_OF_CAR, False),
        (Claim((Mention("fox"),), background="grass"), FOX_LEFT_OF_CAR, True),
        (Claim((Mention("fox"),), background="snow"), FOX_LEFT_OF_CAR, False),
        (Claim((Mention("fox"),)), THREE_FOXES, False),
        (Claim((Mention("fox", 2),)), THREE_FOXES, False),
        (Claim((Mention("fox", 3),)), THREE_FOXES, True),
        (Claim((Mention("fox", 3, "small"), Mention("car"))), THREE_FOXES, True),
        (Claim((Mention("fox", 3, "large"),)), THREE_FOXES, False),
        (Claim((Mention("car", location="left"),)), THREE_FOXES, True),
        (Claim((Mention("car", location="top"),)), THREE_FOXES, True),
    ],
)
def test_whether_a_claim_holds_follows_from_the_graph(claim, scene, true):
    assert holds(claim, scene) is true


drawn = st.builds(
    lambda split, seed, index: (Scenes(split, seed, bank=BANK), index, generator(seed, index)),
    st.sampled_from(SPLITS),
    st.integers(0, 2**40),
    st.integers(0, 10**9),
)


@settings(deadline=None, max_examples=200)
@given(drawn, st.booleans())
def test_drawn_claims_hold_and_altered_ones_differ_in_one_thing_and_do_not(drawn, rich):
    scenes, index, rng = drawn
    scene = scenes.scene(index)
    claim = plan(scene, rng, rich=rich).claim(scene)
    assert holds(claim, scene)
    for aspect in ASPECTS:
        false = altered(claim, aspect, scene, scenes.nouns, rng)
        if false is None:
            continue
        assert not holds(false, scene)
        assert meaning(false) != meaning(claim)
        assert (false.background != claim.background) == (aspect == "background")
        assert (false.relation != claim.relation) == (aspect == "relation")
        changed = [(a, b) for a, b in zip(claim.things, false.things, strict=True) if a != b]
        assert len(changed) == (aspect not in ("background", "relation"))
        for a, b in changed:
            same = [getattr(a, name) == getattr(b, name) for name in ("noun", "count", "size", "location")]
            assert same.count(False) == 1
            assert getattr(a, aspect) != getattr(b, aspect)


def test_what_a_claim_does_not_say_cannot_be_altered():
    rng = generator("test")
    bare = Claim((Mention("fox"), Mention("car")))
    said = [aspect for aspect in ASPECTS if altered(bare, aspect, FOX_LEFT_OF_CAR, BANK.nouns, rng)]
    assert said == ["noun"]


def test_equal_meanings_have_equal_numbers_and_others_do_not():
    fox, car = Mention("fox"), Mention("car", size="large")
    assert meaning(Claim((fox, car), "left")) == meaning(Claim((car, fox), "right"))
    assert meaning(Claim((fox, car), "below", "snow")) == meaning(Claim((car, fox), "above", "snow"))
    assert meaning(Claim((fox, car))) == meaning(Claim((car, fox)))
    different = [
        Claim((fox,)),
        Claim((car,)),
        Claim((fox, car)),
        *(Claim((fox, car), to) for to in OPPOSITE),
        Claim((fox, car), "left", "grass"),
        Claim((fox,), None, "grass"),
        Claim((Mention("fox", 2),)),
        Claim((Mention("fox", location="left"),)),
        Claim((Mention("fox", size="small"),)),
    ]
    numbers = {meaning(claim) for claim in different}
    assert len(numbers) == len(different)
    assert all(0 <= number < 2**63 for number in numbers)
    assert meaning(Claim((Mention("fox"),))) == 4700311409195194276  # stable between machines and versions


def all_wordings(claim: Claim, templates: str) -> set[str]:
    grid = np.linspace(0, 0.999, 24)
    return {
        word(claim, (form, behind, place, place, place, place, place), templates, PLURALS)
        for form in grid
        for behind in (0.0, 0.25, 0.5, 0.7, 0.9)
        for place in (0.0, 0.5, 0.9)
    }


EVERY_FORM = [
    Claim((Mention("fox"),)),
    Claim((Mention("fox", 2), Mention("car"))),
    Claim((Mention("fox"), Mention("car"), Mention("owl", size="large"))),
    Claim((Mention("fox", location="top"),), background="grass"),
    Claim((Mention("fox", location="left"), Mention("car", location="right"))),
    Claim((Mention("fox"), Mention("car")), "left", "night sky"),
    Claim((Mention("fox"), Mention("car")), "below"),
]


@pytest.mark.parametrize("claim", EVERY_FORM)
def test_unseen_templates_say_it_as_training_never_does(claim):
    seen, unseen = all_wordings(claim, "train"), all_wordings(claim, "unseen")
    assert len(seen) >= 4
    assert len(unseen) >= 2
    mirrored = Claim(
        claim.things[::-1], OPPOSITE[claim.relation] if claim.relation else None, claim.background
    )
    assert not unseen & (seen | all_wordings(mirrored, "train"))
    # What is new is how it is said: nearly all words are known from training.
    every = {
        w
        for claim in EVERY_FORM
        for caption in all_wordings(claim, "train")
        for w in re.findall(r"\w+", caption)
    }
    assert {w for caption in unseen for w in re.findall(r"\w+", caption)} <= every


@settings(deadline=None, max_examples=200)
@given(drawn, st.sampled_from(["train", "unseen"]))
def test_captions_are_clean_and_short(drawn, templates):
    scenes, index, rng = drawn
    caption = phrase(claims(scenes.scene(index), rng), rng, templates, BANK.plurals)
    assert re.fullmatch(r"[a-z0-9]+(,? [a-z0-9]+)*", caption), caption
    assert len(caption.split()) <= 24


def test_relations_read_as_they_are_meant():
    claim = Claim((Mention("fox"), Mention("car")), "left")
    assert all_wordings(claim, "train") == {
        "a fox to the left of a car",
        "a car to the right of a fox",
        "a fox left of a car",
        "a car right of a fox",
        "a car with a fox on its left",
        "a fox with a car on its right",
        "there is a fox left of a car",
        "there is a car right of a fox",
    }
    claim = Claim((Mention("fox"), Mention("car")), "above")
    assert {"a fox above a car", "a car under a fox", "a fox with a car below it"} <= all_wordings(
        claim, "train"
    )
    assert all_wordings(claim, "unseen") == {
        "you can see a fox above a car",
        "you can see a fox over a car",
        "above a car there is a fox",
        "over a car there is a fox",
    }


@pytest.mark.parametrize(
    ("mention", "name"),
    [
        (Mention("owl"), "an owl"),
        (Mention("owl", size="small"), "a small owl"),
        (Mention("unicorn"), "a unicorn"),
        (Mention("scissors"), "scissors"),
        (Mention("fox", 3, "large"), "three large foxes"),
    ],
)
def test_names_are_grammatical(mention, name):
    assert word(Claim((mention,)), (0.0,) * 7, "train", PLURALS) == name


def test_tags_are_bare_words():
    claim = Claim((Mention("fox", 2, "small"), Mention("car")), None, "pink stripes")
    said = tags(claim, generator("test"), PLURALS)
    assert sorted(said.split()) == ["car", "foxes", "pink", "stripes"]


def test_the_same_choices_word_claims_alike():
    wording = choices(generator("alike"))
    for first, second in (("left", "right"), ("above", "below")):
        one, other = (
            word(Claim((Mention("fox"), Mention("car")), to), wording, "train", PLURALS).split()
            for to in (first, second)
        )
        assert sum(a != b for a, b in zip(one, other, strict=True)) == 1


def test_a_caption_can_place_one_thing_of_two_and_twins_then_differ_in_that_place():
    scenes = Scenes(seed=5, mix={"pair": 1.0}, twin_share=1.0, twin_aspects=("relation",), bank=BANK)
    placed = 0
    for number in range(200):
        couple = scenes.couple(number)
        made = plan(couple.scenes[0], generator("plan", number), couple.change)
        first, second = (made.claim(scene) for scene in couple.scenes)
        assert first != second
        if len(made.things) == 1 and made.located:
            placed += 1
            assert first.things[0].location != second.things[0].location
    assert 80 < placed < 140
