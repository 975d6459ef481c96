"""The probe of what two things' captions mean asks what it says."""

import dataclasses
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

import toy
from albef import Engine
from albef.data.pictograms.captions import Claim, Mention, choices, holds, word
from albef.data.pictograms.chance import generator
from albef.data.pictograms.painting import Painter
from albef.data.pictograms.scenes import Scenes
from albef.data.pictograms.things import Thing
from albef.data.text import Tokenizer
from albef.model.albef import ALBEF

FILE = Path(__file__).parent.parent / "scripts" / "two_things.py"
SPEC = importlib.util.spec_from_file_location("two_things", FILE)
assert SPEC is not None
assert SPEC.loader is not None
two_things = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(two_things)


def test_swaps_are_false_and_say_the_same_words() -> None:
    scenes = Scenes("test", 3, 12, mix={"pair": 1.0}, twin_share=0.0)
    asked = Counter[str]()
    for index in range(100):
        scene, wording = scenes.scene(index), choices(generator("test", index))
        for about, true, false in two_things.swaps(scene):
            asked[about] += 1
            assert holds(true, scene)
            assert not holds(false, scene)
            words, others = (word(claim, wording).replace(",", "").split() for claim in (true, false))
            if about == "both are placed":  # a bag of words can't tell them apart
                assert sorted(words) == sorted(others) != words
            assert len(words) == len(others)
    assert asked["one is placed"] == asked["both are placed"] == asked["how they lie"] == 100
    assert 20 < asked["their sizes"] < 80


def test_a_masked_noun_is_not_told_by_its_article() -> None:
    scenes = Scenes("test", 3, 24, mix={"pair": 1.0}, twin_share=0.0)
    asked = Counter[bool]()
    for index in range(200):
        scene, wording = scenes.scene(index), choices(generator("test", index))
        articles = {
            word(Claim((Mention(thing.noun),)), wording).partition(thing.noun)[0] for thing in scene.things
        }
        text = two_things.masked(scene, wording)
        assert text.count("[MASK]") == (len(articles) == 1)
        asked[bool(text)] += 1
    assert asked[True] > asked[False] > 0


def test_a_thing_covers_the_patches_whose_centres_it_holds() -> None:
    thing = Thing("fox", "twemoji", 0, "small", (0.5, 0.0, 1.0, 0.4), False)
    assert two_things.covered(thing, 4).reshape(4, 4).tolist() == [
        [False, False, True, True],
        [False, False, True, True],
        [False] * 4,
        [False] * 4,
    ]


@pytest.mark.parametrize("placed_patches", [False, True])
def test_a_noun_that_looks_everywhere_alike_looks_at_each_thing_for_its_share(placed_patches: bool) -> None:
    scenes = Scenes("test", 3, 12, mix={"pair": 1.0}, twin_share=0.0)
    shown = [scenes.scene(index) for index in range(4)]
    model = ALBEF(dataclasses.replace(toy.ENGINE_MODEL, fuse_placed_patches=placed_patches))
    for layer in model.fusion_encoder.layers:
        torch.nn.init.zeros_(layer.cross_attention.query.weight)
    engine = Engine(model, Tokenizer.train(["a fox on the left"], toy.ENGINE_MODEL.vocab_size), quiet=True)
    with torch.no_grad():
        found = two_things.looks(engine, shown, [Painter(32).paint(scene) for scene in shown])
    tokens = toy.ENGINE_MODEL.grid**2 + (not placed_patches)
    covers = [
        np.mean([two_things.covered(scene.things[thing], toy.ENGINE_MODEL.grid).sum() for scene in shown])
        for thing in range(2)
    ]
    expected = [*(cover / tokens for cover in covers), (not placed_patches) / tokens]
    np.testing.assert_allclose(found, [expected] * toy.ENGINE_MODEL.fusion_depth, rtol=1e-5)
