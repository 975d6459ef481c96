"""The embedded drawings: what the scenes and the held-out splits take for granted about them."""

from collections import defaultdict
from importlib import resources

import numpy as np
import pyarrow.parquet as pq
import pytest

from albef.data.pictograms.sprites import SPRITE_SIDE, load_sprites

FOLDER = resources.files("albef.data.pictograms")
VENDORS = {"emojione", "fluent", "fxemoji", "noto", "streamline", "twemoji"}


@pytest.fixture(scope="module")
def bank():
    return load_sprites()


@pytest.fixture(scope="module")
def rows():
    with resources.as_file(FOLDER / "sprites.parquet") as path:
        return pq.read_table(path).to_pylist()


def test_file_is_small_enough_to_ship():
    assert len((FOLDER / "sprites.parquet").read_bytes()) <= 6_000_000


def test_enough_nouns_each_drawn_by_at_least_five_sets(rows):
    sets = defaultdict(list)
    for row in rows:
        sets[row["noun"]].append(row["set"])
    assert len(sets) >= 230
    for noun, names in sets.items():
        assert len(names) == len(set(names)) >= 5, noun


def test_bank_keeps_the_order_and_the_number_of_the_file(bank, rows):
    assert bank.nouns == tuple(dict.fromkeys(row["noun"] for row in rows))
    assert sum(len(images) for images in bank.images.values()) == len(rows)
    assert load_sprites() is bank


def test_sets_by_one_hand_are_one_vendor(bank, rows):
    assert set(bank.vendors) == VENDORS
    by_set = {row["set"]: row["vendor"] for row in rows}
    assert by_set["noto"] == by_set["noto-v1"] == "noto"
    assert by_set["fluent-emoji"] == by_set["fluent-emoji-flat"] == "fluent"
    for (_, vendor), images in bank.images.items():
        assert len(images) <= (2 if vendor in ("noto", "fluent") else 1)


def test_first_nouns_can_be_split_by_vendor(bank):
    for noun in bank.nouns[:120]:
        drawn_by = {vendor for vendor in bank.vendors if (noun, vendor) in bank.images}
        assert "noto" in drawn_by, noun
        assert len(drawn_by) >= 4, noun


def test_words_are_lower_case_and_no_noun_is_part_of_another(bank):
    assert set(bank.plurals) == set(bank.nouns)
    for noun in bank.nouns:
        for words in (noun, bank.plurals[noun]):
            assert 1 <= len(words.split()) <= 2
            assert words.replace(" ", "").isalpha()
            assert words == words.lower()
    assert all(" " not in noun for noun in bank.nouns[:24])
    words_of = {noun: set(noun.split()) for noun in bank.nouns}
    assert not [(a, b) for a in bank.nouns for b in bank.nouns if a != b and words_of[a] <= words_of[b]]
    assert len({*bank.nouns, *bank.plurals.values()}) >= 2 * len(bank.nouns) - 10  # "fish" is its own plural


def test_sprites_are_trimmed_centred_and_visible(bank):
    for key, images in bank.images.items():
        for image in images:
            assert image.shape == (SPRITE_SIDE, SPRITE_SIDE, 4)
            assert image.dtype == np.uint8
            assert not image.flags.writeable
            alpha = image[..., 3]
            assert (alpha > 127).mean() > 0.10, key
            columns, rows = (np.flatnonzero(alpha.any(axis=axis)) for axis in (0, 1))
            assert max(np.ptp(columns), np.ptp(rows)) >= SPRITE_SIDE - 2, key
            for filled in (columns, rows):
                assert abs(filled[0] - (SPRITE_SIDE - 1 - filled[-1])) <= 2, key


def test_every_sprite_names_its_author_and_a_licence_without_share_alike(rows):
    for row in rows:
        assert row["author"]
        assert row["licence"] in {"Apache-2.0", "CC-BY-4.0", "MIT"}
        assert row["tags"]
    attribution = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for name in {row["set"] for row in rows}:
        assert f"| {name} |" in attribution
