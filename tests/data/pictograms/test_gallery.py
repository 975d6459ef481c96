import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albef.config import UserError
from albef.data.pictograms.captions import holds, meaning, word
from albef.data.pictograms.gallery import Pictograms, foils, gallery
from albef.data.pictograms.scenes import SPLITS, Scenes
from albef.data.pictograms.sprites import load_sprites

BANK = load_sprites()
seeds = st.integers(0, 2**40)
numbers = st.integers(0, 10**9)


def pictograms(split: str = "train", seed: int = 0, **settings) -> Pictograms:
    return Pictograms(split, seed, image_size=24, bank=BANK, **settings)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(SPLITS), seeds, numbers, st.integers(0, 9), st.sampled_from([0.0, 0.5]))
def test_items_depend_on_their_key_alone(split, seed, index, epoch, noise):
    pairs = pictograms(split, seed, caption_noise=noise)
    one = pairs.item(index, epoch)
    pairs.item(index + 1)
    other = pictograms(split, seed, caption_noise=noise).item(index, epoch)
    assert np.array_equal(one.image, other.image)
    assert one.image.shape == (24, 24, 3)
    assert (one.caption, one.clean_caption, one.claim, one.scene) == (
        other.caption,
        other.clean_caption,
        other.claim,
        other.scene,
    )
    assert one.scene != pairs.item(index, epoch + 1).scene
    assert one.noisy or one.caption == one.clean_caption
    assert one.noisy or holds(one.claim, one.scene)
    assert one.meaning == meaning(one.claim)


def test_splits_and_seeds_share_no_scene():
    sources = [pictograms(split, seed) for split in ("train", "test") for seed in (0, 1)]
    scenes = {source.item(index).scene for source in sources for index in range(200)}
    assert len(scenes) == 800


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(["train", "test"]), seeds, numbers)
def test_twin_captions_differ_in_the_one_thing_in_which_the_scenes_do(split, seed, number):
    pairs = pictograms(split, seed, twin_share=1.0)
    a, b = pairs.item(2 * number), pairs.item(2 * number + 1)
    change = Scenes(split, seed, twin_share=1.0, bank=BANK).couple(number).change
    assert change is not None
    assert holds(a.claim, a.scene)
    assert not holds(a.claim, b.scene)
    assert not holds(b.claim, a.scene)
    assert (a.claim.background != b.claim.background) == (change.aspect == "background")
    differing = {
        name
        for p, q in zip(a.claim.things, b.claim.things, strict=True)
        for name in ("noun", "count", "size", "location")
        if getattr(p, name) != getattr(q, name)
    }
    if change.aspect == "relation":  # of two, or where each of the two is
        assert (a.claim.relation != b.claim.relation) != (differing == {"location"})
        assert differing <= {"location"}
    else:
        assert a.claim.relation == b.claim.relation
        assert differing == {change.aspect} - {"background"}
    counts = [(p.count, q.count) for p, q in zip(a.claim.things, b.claim.things, strict=True)]
    singular = any(p != q and 1 in (p, q) for p, q in counts)
    if change.aspect in ("size", "count") and not singular:  # of which the noun has another form
        words = zip(a.caption.split(), b.caption.split(), strict=True)
        said = sum(p.size != q.size for p, q in zip(a.claim.things, b.claim.things, strict=True))
        assert sum(p != q for p, q in words) == max(said, 1)  # sizes that are swapped can both be said
    if change.aspect == "background":
        assert a.caption.replace(a.scene.background, "x").replace("a x", "x") == b.caption.replace(
            b.scene.background, "x"
        ).replace("a x", "x")


def test_shares_of_what_captions_say():
    pairs = pictograms()
    items = [pairs.item(index) for index in range(3000)]

    def share(says) -> float:
        return float(np.mean([says(item.claim) for item in items]))

    assert 0.27 < share(lambda claim: claim.background is not None) < 0.41
    assert 0.45 < share(lambda claim: any(m.size for m in claim.things)) < 0.72
    of_two = [item.claim for item in items if item.scene.kind == "pair"]
    assert 0.38 < np.mean([claim.relation is not None for claim in of_two]) < 0.55
    assert 0.3 < np.mean([all(m.location for m in claim.things) for claim in of_two]) < 0.46


def test_caption_noise_is_the_share_asked_for_and_of_every_sort():
    pairs = pictograms(caption_noise=0.2)
    items = [pairs.item(index) for index in range(3000)]
    noisy = [item for item in items if item.noisy]
    assert 0.17 < len(noisy) / len(items) < 0.23
    false = [item for item in noisy if not holds(item.claim, item.scene)]
    assert 0.3 < len(false) / len(noisy) < 0.7
    assert all(item.caption == item.clean_caption for item in items if not item.noisy)
    quiet = pictograms()
    assert all(quiet.item(index).caption == items[index].clean_caption for index in range(0, 3000, 100))
    strangers = [i for i in false if not {m.noun for m in i.claim.things} & {t.noun for t in i.scene.things}]
    assert strangers  # captions of other pictures


def test_several_captions_of_one_picture_start_with_that_of_the_item():
    pairs = pictograms(caption_noise=1.0)
    said = pairs.captions(7, count=4)
    assert len(said) == 4
    assert said[0] == pairs.item(7).clean_caption
    assert len(pairs.captions(7)) == 3
    assert len({caption for index in range(20) for caption in pairs.captions(index)}) > 45


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("seed", [0, 1])
def test_each_caption_of_a_gallery_is_true_of_its_own_scene_only(split, seed):
    found = gallery(split, seed, count=120, image_size=24, bank=BANK)
    assert len(found.scenes) == len(found.captions) == len(found.claims) == len(found.images) == 120
    truth = [[holds(claim, scene) for scene in found.scenes] for claim in found.claims]
    assert np.array_equal(truth, np.eye(120, dtype=bool))
    assert len(set(found.captions)) == 120
    again = gallery(split, seed, count=120, image_size=24, bank=BANK)
    assert again.captions == found.captions
    assert np.array_equal(again.images, found.images)


def test_a_gallery_of_the_default_size_has_foils_enough_of_every_kind():
    found = gallery(bank=BANK, image_size=24)
    made = foils(found)
    kinds = [foil.kind for foil in made]
    for kind in ("noun", "count", "size", "background", "location", "relation"):
        assert kinds.count(kind) >= 80, kind
    assert len({(foil.index, foil.kind) for foil in made}) == len(made)
    assert made == foils(found)
    assert [foil.index for foil in foils(found, kinds=["noun"])] == list(range(500))


@settings(deadline=None, max_examples=10)
@given(st.sampled_from(SPLITS), seeds)
def test_foils_change_a_word_or_so_and_are_no_caption_of_the_scene(split, seed):
    found = gallery(split, seed, count=40, image_size=16, bank=BANK)
    for foil in foils(found, seed):
        caption = found.captions[foil.index]
        assert foil.caption != caption
        if foil.kind in ("count", "size", "relation"):
            pairs = zip(caption.split(), foil.caption.split(), strict=True)
            changed = [(a, b) for a, b in pairs if a.strip(",") != b.strip(",")]
            assert len(changed) == 1
        said = word(found.claims[foil.index], found.wordings[foil.index], plurals=BANK.plurals)
        assert split == "unseen_template" or said == caption


def test_a_gallery_that_words_cannot_tell_apart_is_refused():
    with pytest.raises(UserError, match="num_nouns"):
        gallery("unseen_background", count=80, num_nouns=8, image_size=8, bank=BANK, mix={"single": 1.0})
