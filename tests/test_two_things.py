"""The probe of what two things' captions mean asks what it says."""

import importlib.util
from collections import Counter
from pathlib import Path

from albef.data.pictograms.captions import choices, holds, word
from albef.data.pictograms.chance import generator
from albef.data.pictograms.scenes import Scenes

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
