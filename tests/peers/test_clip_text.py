"""CLIP's cleaning and byte pairs. `tests/parity` compares both with published ids."""

import html
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

import toy
import toy_clip
from albef.config import UserError
from albef.data.text import Tokenizer
from albef.peers.clip_text import OPEN_CLIP_SPECIALS, SPECIALS, ClipTokenizer, clean_text

TRAINED = ClipTokenizer.train(toy.CAPTIONS * 5, 560)
any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@pytest.fixture(scope="module")
def published() -> ClipTokenizer:
    return ClipTokenizer.published()


def test_the_published_vocabulary(published: ClipTokenizer) -> None:
    assert len(published.merges) == 48_894
    assert (published.vocab_size, published.start_id, published.end_id) == (49_408, 49_406, 49_407)
    encoded = published.encode("a photo of a cat", 77)
    assert encoded.ids.tolist() == [49406, 320, 1125, 539, 320, 2368, 49407]
    assert encoded.ids.dtype == np.int64
    assert published.encode("", 77).ids.tolist() == [49406, 49407]
    assert published.encode("!a", 77).ids.tolist() == [49406, 256, 320, 49407]


def test_a_long_text_is_cut_and_says_so(published: ClipTokenizer) -> None:
    fits, cut = (published.encode(" ".join(["cat"] * count), 77) for count in (75, 80))
    assert (len(fits.ids), fits.num_cut) == (77, 0)
    assert (len(cut.ids), cut.num_cut) == (77, 5)
    assert np.array_equal(fits.ids, cut.ids)


def test_special_tokens_come_from_a_text_only_if_asked_for(published: ClipTokenizer) -> None:
    text = "a cat <|endoftext|> a dog"
    start, end = published.start_id, published.end_id
    taken_apart = published.encode(text, 77).ids
    assert taken_apart.tolist().count(end) == 1
    asked = ClipTokenizer(published.merges, SPECIALS)
    assert asked.encode(text, 77).ids.tolist() == [start, 320, 2368, end, 320, 1929, end]
    assert asked.encode("<|EndOfText|>", 77).ids.tolist() == [start, end, end]
    # As published, what stands before it without a space is read first, and takes its beginning away.
    assert asked.encode("!<|endoftext|>", 77).ids.tolist().count(end) == 1
    theirs = ClipTokenizer(published.merges, OPEN_CLIP_SPECIALS)
    assert np.array_equal(theirs.encode(text, 77).ids, taken_apart)
    assert theirs.encode("<start_of_text>", 77).ids.tolist() == [start, start, end]


@given(any_text)
def test_every_text_has_ids_and_comes_back(text: str) -> None:
    encoded = TRAINED.encode(text, 10_000)
    assert (encoded.ids[0], encoded.ids[-1], encoded.num_cut) == (TRAINED.start_id, TRAINED.end_id, 0)
    assert encoded.ids[:-1].max() < TRAINED.end_id
    without_spaces = "".join(TRAINED.decode(encoded.ids).split())
    assert without_spaces == "".join(text.split())


def test_a_name_with_odd_bytes_has_ids() -> None:
    assert len(TRAINED.encode("fox\udcff", 10).ids) > 2


def test_a_trained_vocabulary_joins_what_is_frequent_and_is_always_the_same() -> None:
    assert 514 < TRAINED.vocab_size <= 560
    assert ("fo", "x</w>") in TRAINED.merges
    assert len(TRAINED.encode("a fox", 10).ids) == 4
    assert ClipTokenizer.train(toy.CAPTIONS * 5, 560).merges == TRAINED.merges
    with pytest.raises(UserError, match="at least 514"):
        ClipTokenizer.train(toy.CAPTIONS, 513)


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    TRAINED.save(tmp_path / "tokenizer.json", toy_clip.CONFIG)
    for other in (
        ClipTokenizer.load(tmp_path / "tokenizer.json", SPECIALS),
        pickle.loads(pickle.dumps(ClipTokenizer(TRAINED.merges, SPECIALS))),
    ):
        assert (other.merges, other.spelled) == (TRAINED.merges, SPECIALS)
        assert other.encode("<|endoftext|>", 9).ids.tolist() == [TRAINED.start_id] + [TRAINED.end_id] * 2


def test_other_libraries_read_the_same_file(tmp_path: Path) -> None:
    TRAINED.save(tmp_path / "tokenizer.json", toy_clip.CONFIG)
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert theirs.encode("A  fox's 12!").ids == TRAINED.encode("a fox's 12!", 77).ids.tolist()


def test_other_tokenizers_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    with pytest.raises(UserError, match="no such file"):
        ClipTokenizer.load(file)
    Tokenizer.train(toy.CAPTIONS, 60).save(file, toy.MODEL)
    with pytest.raises(UserError, match="byte pairs"):
        ClipTokenizer.load(file)
    TRAINED.save(file, toy_clip.CONFIG)
    content = json.loads(file.read_text("utf-8"))
    ids = content["model"]["vocab"]
    ids["a"], ids["b"] = ids["b"], ids["a"]
    file.write_text(json.dumps(content), "utf-8")
    with pytest.raises(UserError, match="not in CLIP's order"):
        ClipTokenizer.load(file)


def test_cleaning_without_its_extra_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(UserError, match=r"albef\[clip\]"):
        clean_text("a café")
    assert clean_text(" A  fox ") == "a fox"  # which nothing would change


@given(st.text(st.characters(max_codepoint=127), max_size=20))
def test_what_needs_no_mending_is_cleaned_as_if_it_did(text: str) -> None:
    ftfy = pytest.importorskip("ftfy")
    whole = html.unescape(html.unescape(ftfy.fix_text(text)))
    assert clean_text(text) == " ".join(whole.split()).lower()


def test_cleaning() -> None:
    pytest.importorskip("ftfy")
    assert clean_text("  A&amp;lt;b&amp;gt;\n\tschÃ¶n ") == "a<b> schön"
