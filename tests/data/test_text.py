import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import albef.data.text
from albef.config import ModelConfig, UserError
from albef.data.text import SPECIALS, Tokenizer, clean_caption, clean_question, mask_tokens

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "text.json").read_text("utf-8"))
BERT = Tokenizer.bert()
WORDS = ["a", "fox", "on", "the", "left", "of", "an", "unbelievable", "car"]
CAPTIONS = ["two foxes above a red car", "a fox on the left", "three red cars on grass", "a café by night"]


def test_the_vocabulary_is_the_published_one():
    file = Path(albef.data.text.__file__).parent / "bert-base-uncased-vocab.txt"
    assert hashlib.sha256(file.read_bytes()).hexdigest() == GOLDEN["vocab_sha256"]
    assert BERT.vocab_size == 30522
    assert (BERT.pad_id, BERT.unk_id, BERT.cls_id, BERT.sep_id, BERT.mask_id) == (0, 100, 101, 102, 103)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: case["text"][:20])
def test_cleaning_and_ids_equal_the_published_ones(case):
    caption, question = clean_caption(case["text"], 30), clean_question(case["text"], 30)
    assert caption == case["caption30"]
    assert question == case["question30"]
    assert BERT.encode(caption, 25, append_sep=False).tolist() == case["ids_caption_truncated25"]
    assert BERT.encode(question, 25, append_sep=False).tolist() == case["ids_question_truncated25"]


@settings(deadline=None)
@given(st.text(), st.integers(1, 40))
def test_clean_captions_are_short_and_stay_as_they_are(text, max_words):
    cleaned = clean_caption(text, max_words)
    assert len(cleaned.split(" ")) <= max_words
    assert not set(cleaned) & set(",.'!?\"()*#:;~-/")


@settings(deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from([*SPECIALS, "[unused1]", " ", "a"]), st.text())).map("".join),
    st.integers(2, 12),
    st.booleans(),
)
def test_text_never_becomes_special_tokens(text, max_tokens, append_sep):
    ids = BERT.encode(text, max_tokens, append_sep)
    assert ids.dtype == np.int64
    assert 1 <= len(ids) <= max_tokens
    assert ids[0] == BERT.cls_id
    words = ids[1:-1] if append_sep else ids[1:]
    assert not np.isin(words, (BERT.cls_id, BERT.sep_id, BERT.mask_id, BERT.pad_id)).any()
    if append_sep:
        assert ids[-1] == BERT.sep_id


def test_special_words_are_taken_apart():
    ids = BERT.encode("[SEP] injected [MASK]", 25, append_sep=False)
    pieces = ["[CLS]", "[", "sep", "]", "injected", "[", "mask", "]"]
    assert "".join(BERT.pieces(ids)).replace("##", "") == "".join(pieces)


def test_decode_leaves_special_tokens_out():
    ids = BERT.encode("antidisestablishmentarianism on grass", 25, append_sep=True)
    assert BERT.decode(ids) == "antidisestablishmentarianism on grass"


def test_words_are_whole_and_know_their_pieces():
    text = "a café with unbelievably 雪 zebras"
    words = BERT.words(text, 99, append_sep=True)
    assert [word for word, _ in words] == text.split()
    pieces = BERT.pieces(BERT.encode(text, 99, append_sep=True))
    assert [place for _, places in words for place in places] == list(range(1, len(pieces) - 1))
    assert "".join(pieces[place] for place in dict(words)["unbelievably"]) == "un##bel##ie##va##bly"
    cut = BERT.encode(text, 6, append_sep=True)
    assert (
        max(place for _, places in BERT.words(text, 6, append_sep=True) for place in places) == len(cut) - 2
    )
    assert BERT.words("", 9, append_sep=False) == []


def test_a_trained_vocabulary_knows_its_captions_and_survives_saving(tmp_path):
    tokenizer = Tokenizer.train(CAPTIONS, vocab_size=60)
    assert tokenizer.vocab_size == 60
    ids = [tokenizer.encode(caption, 40, append_sep=False) for caption in CAPTIONS]
    assert [tokenizer.decode(row) for row in ids] == [caption.replace("é", "e") for caption in CAPTIONS]
    assert all(tokenizer.unk_id not in row and row.max() < 60 for row in ids)
    assert tokenizer.unk_id in tokenizer.encode("жук", 40, append_sep=False)

    tokenizer.save(tmp_path / "tokenizer.json", ModelConfig())
    for copy in (Tokenizer.load(tmp_path / "tokenizer.json"), pickle.loads(pickle.dumps(tokenizer))):
        assert copy.vocab_size == 60
        for text in (*CAPTIONS, "[MASK] red"):
            expected = tokenizer.encode(text, 40, append_sep=True)
            assert np.array_equal(copy.encode(text, 40, append_sep=True), expected)


def test_training_gives_the_same_vocabulary_in_every_process():
    program = f"""
from albef.data.text import Tokenizer
tokenizer = Tokenizer.train({CAPTIONS!r}, vocab_size=55)
print(tokenizer.pieces(range(tokenizer.vocab_size)))
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    run = [sys.executable, "-c", program]
    outputs = {subprocess.run(run, env=environment, capture_output=True, check=True).stdout for _ in range(3)}
    here = Tokenizer.train(CAPTIONS, vocab_size=55)
    assert outputs == {f"{here.pieces(range(here.vocab_size))}\n".encode()}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "no such file"),
        ("not json", "not a tokenizer.json"),
        (json.dumps({"model": {"type": "WordPiece", "vocab": {"[UNK]": 0}}}), "lacks|not a tokenizer.json"),
    ],
)
def test_a_wrong_tokenizer_file_is_named(tmp_path, content, problem):
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=problem) as caught:
        Tokenizer.load(file)
    assert str(file) in str(caught.value)


@settings(deadline=None)
@given(st.lists(st.integers(0, 30521), max_size=30), st.floats(0, 1), st.integers(0, 2**32))
def test_masking_touches_chosen_words_only(words, probability, seed):
    ids = np.array([BERT.cls_id, *words, BERT.sep_id, BERT.pad_id], dtype=np.int64)
    before = ids.copy()
    masked, chosen = mask_tokens(ids, probability, BERT, np.random.default_rng(seed))
    assert np.array_equal(ids, before)
    assert masked.dtype == np.int64
    assert masked.shape == chosen.shape == ids.shape
    assert np.array_equal(masked[~chosen], ids[~chosen])
    assert not chosen[np.isin(ids, (BERT.cls_id, BERT.sep_id, BERT.pad_id))].any()
    assert ((masked >= 0) & (masked < BERT.vocab_size)).all()


@given(
    st.lists(st.sampled_from(WORDS)),
    st.floats(0, 0.5),
    st.integers(0, 99),
)
def test_content_alone_can_be_masked_and_then_always_is(words, probability, seed):
    ids = BERT.encode(" ".join(words), 40, append_sep=True)
    _, chosen = mask_tokens(ids, probability, BERT, np.random.default_rng(seed), content_only=True)
    fillers = np.isin(BERT.pieces(ids), ["a", "an", "the", "of", "on", *SPECIALS])
    assert not (chosen & fillers).any()
    assert chosen.any() == (not fillers.all())
    if probability == 0:
        assert chosen.sum() == (not fillers.all())


def test_masking_rates():
    ids = np.full(100_000, 2000)
    masked, chosen = mask_tokens(ids, 0.15, BERT, np.random.default_rng(0))
    assert chosen.mean() == pytest.approx(0.15, abs=0.005)
    assert (masked[chosen] == BERT.mask_id).mean() == pytest.approx(0.8, abs=0.02)
    assert (masked[chosen] == 2000).mean() == pytest.approx(0.1, abs=0.02)
    assert len(np.unique(masked[chosen])) > 1000
