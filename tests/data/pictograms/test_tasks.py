"""Pictogram versions of the tasks: every answer and label is true of the scene, and words alone tell little."""

import re
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albef.config import DataConfig, TaskName, UserError
from albef.data.pictograms import captions, questions, references, statements
from albef.data.pictograms.captions import Claim, holds
from albef.data.pictograms.scenes import BACKGROUNDS, Scene
from albef.data.pictograms.things import is_at, lies
from albef.data.pictograms.world import World
from albef.data.sources import open_source

SIDE = 32
NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}


class Watched(World):
    """A world that remembers the scenes that it painted, and what it said last."""

    def phrase(self, claim: Claim, rng: np.random.Generator) -> str:
        self.said = claim
        return super().phrase(claim, rng)

    def paint(self, scene: Scene) -> np.ndarray:
        self.painted = [*getattr(self, "painted", []), scene]
        return super().paint(scene)


@pytest.fixture(scope="module")
def world() -> Watched:
    return Watched("train", 3, 24, SIDE)


def true_answer(scene: Scene, question: str, answer: str, plurals: dict[str, str]) -> bool:
    """Whether the answer is right, found out from the words of the question."""
    nouns = [thing.noun for thing in scene.things]
    asked = [noun for noun in plurals if noun in question or plurals[noun] in question]
    asked = [max(asked, key=len)] if asked else []
    if question.startswith("is there"):
        return (asked[0] in nouns) == (answer == "yes")
    if question.startswith("how many"):
        return nouns.count(asked[0]) == NUMBERS[answer]
    if question.startswith("what is behind"):
        return scene.background == answer
    if question.startswith("is the"):
        return all(thing.size == answer for thing in scene.things if thing.noun == asked[0])
    if question.startswith("where"):
        return is_at(scene.things[nouns.index(asked[0])], answer)
    thing = scene.things[nouns.index(answer)]
    if asked:
        other = scene.things[nouns.index(asked[0])]
        to = next(to for to, words in questions.RELATIONS.items() if f"{words} the" in question)
        return lies(thing, other, to)
    return is_at(thing, next(place for place, words in questions.PLACES.items() if question.endswith(words)))


@settings(max_examples=150)
@given(index=st.integers(0, 10_000))
def test_answers_are_true(world: Watched, index: int) -> None:
    record = questions.question_record(world, index, 0)
    scene = world.painted[-1]
    assert true_answer(scene, record.captions[0], record.answers[0], world.plurals), record.captions


@settings(max_examples=150)
@given(index=st.integers(0, 10_000))
def test_labels_of_sentences_are_true(world: Watched, index: int) -> None:
    record = statements.entailment_record(world, index, 0)
    label = ("contradiction", "neutral", "entailment")[record.label]
    hidden = record.captions[0].endswith(statements.HIDDEN) and record.captions[0].count(",") > 0
    assert holds(world.said, world.painted[-1]) == (label != "contradiction")
    if label != "contradiction":
        assert hidden == (label == "neutral")


@settings(max_examples=60)
@given(number=st.integers(0, 5_000))
def test_statements_are_true_of_one_of_two_pairs(world: Watched, number: int) -> None:
    records = [statements.nlvr_record(world, 2 * number + second, 0) for second in (0, 1)]
    scenes = world.painted[-4:]
    assert records[0].captions == records[1].captions
    assert sorted(record.label for record in records) == [0, 1]
    text = records[0].captions[0]
    for record, pair in zip(records, (scenes[:2], scenes[2:]), strict=True):
        nouns = [{thing.noun for thing in scene.things} for scene in pair]
        named = [n for n in world.nouns if f"a {n} in" in text or f"an {n} in" in text]
        if "left picture and in the right" in text:
            true = all(named[0] in each for each in nouns)
        elif text.endswith("left picture") or text.endswith("right picture"):
            true = named[0] in nouns["right" in text.split()[-2]]
        else:
            a, b = named
            true = any(a in one and b in other for one, other in (nouns, nouns[::-1]))
        assert true == bool(record.label), text


@settings(max_examples=60)
@given(index=st.integers(0, 5_000))
def test_phrases_mean_one_thing(world: Watched, index: int) -> None:
    record = references.grounding_record(world, index, 0)
    scene = world.painted[-1]
    meant = [n for n in world.nouns if f" {n}" in f" {record.captions[0]}"]
    noun = max(meant, key=len)
    (thing,) = (thing for thing in scene.things if thing.noun == noun)
    left, top, right, bottom = (SIDE * side for side in thing.box)
    assert record.box == pytest.approx((left, top, right - left, bottom - top))
    assert record.box in record.proposals
    assert len(record.proposals) == len(scene.things) > 1


@settings(max_examples=60)
@given(index=st.integers(0, 5_000))
def test_captions_that_name_several_things_say_each_once_and_are_true(world: Watched, index: int) -> None:
    record = references.grounding_record(world, index, 0)
    scene = world.painted[-1]
    single = [thing for thing in scene.things if sum(t.noun == thing.noun for t in scene.things) == 1]
    assert (record.naming is None) == (len(single) < 2)
    if record.naming is None:
        return
    assert holds(world.said, scene)
    assert len(record.naming.things) in (2, 3)
    boxes = {thing.noun: [SIDE * side for side in thing.box] for thing in single}
    for noun, (left, top, width, height) in record.naming.things:
        assert (left, top, left + width, top + height) == pytest.approx(boxes[noun])
        assert f" {noun} " in f" {record.naming.caption.replace(',', '')} "
    again = references.grounding_record(world, index, 0)
    assert again.naming == record.naming


def test_words_alone_tell_little() -> None:
    """Fits question -> most frequent answer on one half, scores on the other."""

    def blind(source: str, of: object, count: int) -> float:
        drawn = open_source(DataConfig(source=source, count=count), "train", 0, SIDE)
        seen: dict[str, Counter[object]] = defaultdict(Counter)
        right = []
        for index in range(count):
            record = drawn.record(index, 0)
            text, truth = record.captions[0], of(record)
            if index < count // 2:
                seen[text][truth] += 1
            elif text in seen:
                right.append(seen[text].most_common(1)[0][0] == truth)
        return float(np.mean(right))

    assert blind("pictograms:vqa", lambda record: record.answers[0], 3000) < 0.35
    assert blind("pictograms:nlvr", lambda record: record.label, 1200) < 0.6
    labels = Counter()
    for index in range(1200):
        record = open_source(DataConfig(source="pictograms:entailment"), "train", 0, SIDE).record(index, 0)
        labels[record.captions[0].endswith(statements.HIDDEN), record.label] += 1
    for hidden in (False, True):
        total = sum(count for (h, _), count in labels.items() if h == hidden)
        assert labels[hidden, 0] / total == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("name", ["retrieval", "vqa", "entailment", "nlvr", "grounding"])
def test_records_are_functions_of_their_numbers(name: str) -> None:
    config = DataConfig(source=f"pictograms:{name}", count=8)
    one, other = (open_source(config, "unseen_vendor", 5, SIDE) for _ in range(2))
    for index in (3, 0):
        a, b, later = one.record(index, 0), other.record(index, 0), one.record(index, 1)
        assert a.captions == b.captions
        assert np.array_equal(a.image, b.image)
        assert not np.array_equal(a.image, later.image)
    assert len(one) == 8


def test_an_unknown_version_is_refused() -> None:
    with pytest.raises(UserError, match="pictograms:nlvr"):
        open_source(DataConfig(source="pictograms:chess"), "train", 0)


@pytest.mark.parametrize("split", ["unseen_pair", "unseen_template"])
@pytest.mark.parametrize("name", ["vqa", "nlvr"])
def test_splits_that_a_task_cannot_have_are_refused(name: str, split: str) -> None:
    with pytest.raises(
        UserError, match=f"pictograms:{name} has no split {split}, .*one of train, test, unseen_v"
    ):
        open_source(DataConfig(source=f"pictograms:{name}"), split, 0, SIDE)


def template(sentence: str, plurals: dict[str, str]) -> str:
    """How something is said: "here we see X, the X is X" for whatever things, sizes, places and facts."""
    sentence = re.sub(rf"\b({'|'.join(statements.HIDDEN)})$", "X", sentence)
    places = [place for ways in captions._PLACES.values() for place in ways]
    names = [*plurals, *plurals.values(), *BACKGROUNDS]
    for words in (places, names):
        sentence = re.sub(rf"\b({'|'.join(sorted(words, key=len, reverse=True))})\b", "X", sentence)
    counted = r"\b((an?|two|three|four) )?((small|little|tiny|large|big|huge) )?X"
    return re.sub(r"\b(left|right|above|below|over|under)\b", "D", re.sub(counted, "X", sentence))


@pytest.mark.parametrize("name", ["retrieval", "entailment", "grounding"])
def test_unseen_wordings_are_none_of_training(name: str) -> None:
    config, plurals = DataConfig(source=f"pictograms:{name}", count=400), World("test", 0, 24, 8).plurals
    said = {}
    for split in ("train", "test", "unseen_template"):
        source = open_source(config, split, 0, 8)
        texts = [text for index in range(400) for text in source.record(index, 0).captions]
        said[split] = {template(text, plurals) for text in texts}
    assert len(said["unseen_template"]) >= 4
    assert said["test"] & said["train"]
    assert not said["unseen_template"] & (said["train"] | said["test"])


@pytest.mark.parametrize("name", ["retrieval", "entailment", "grounding"])
def test_the_other_tasks_have_it(name: str) -> None:
    source = open_source(DataConfig(source=f"pictograms:{name}"), "unseen_pair", 0, SIDE)
    assert all(source.record(index, 0).captions for index in range(20))


def test_a_thing_that_a_split_never_shows_is_not_looked_for_without_end() -> None:
    world = World("unseen_pair", 0, 24, SIDE)
    with pytest.raises(UserError, match="no scene with a sunflower"):
        statements.having(world, np.random.default_rng(0), "sunflower")


@pytest.mark.parametrize(
    ("task", "name"), [("vqa", ""), ("entailment", ":vqa"), ("nlvr", ":entailment"), ("nlvr", "")]
)
def test_the_data_of_another_task_are_refused(task: TaskName, name: str) -> None:
    with pytest.raises(UserError, match=f"set data.source=pictograms:{task}"):
        open_source(DataConfig(source=f"pictograms{name}"), "train", 0, SIDE, task)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(UserError, match="no split 'tset'"):
        open_source(DataConfig(source="pictograms:vqa"), "tset", 0, SIDE, "vqa")
