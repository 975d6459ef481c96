"""UNITER's texts: as they are written, and with at least one word to predict."""

import dataclasses
import pickle
from pathlib import Path

import numpy as np
import pytest

from albef.config import DataConfig
from albef.data.text import SPECIALS
from albef.model_config import SIZES
from albef.peers.uniter_text import CasedTokenizer, UniterWords
from albef.systems import words_of

PIECES = (*SPECIALS, "[unused1]", "!", ".", "a", "A", "Café", "cafe", "dog", "Do", "##g", "in")


@pytest.fixture
def words(tmp_path: Path) -> UniterWords:
    file = tmp_path / "vocab.txt"
    file.write_text("\n".join(PIECES) + "\n", "utf-8")
    config = dataclasses.replace(SIZES["uniter-tiny"], max_tokens=12, vocab_size=len(PIECES))
    found = words_of(config, CasedTokenizer.of_vocabulary(file))
    assert isinstance(found, UniterWords)
    return found


def pieces(words: UniterWords, text: str) -> list[str]:
    return words.tokenizer.pieces(words.encode(words.clean(text)))


def test_case_accents_and_punctuation_stay(words: UniterWords) -> None:
    expected = ["[CLS]", "A", "Do", "##g", "in", "a", "Café", "!", ".", "[SEP]"]
    assert pieces(words, "  A Dog in\ta Café!. \n") == expected


def test_a_tokenizer_stays_cased(words: UniterWords, tmp_path: Path) -> None:
    words.tokenizer.save(tmp_path / "tokenizer.json", words.config)
    for again in (
        CasedTokenizer.load(tmp_path / "tokenizer.json"),
        pickle.loads(pickle.dumps(words.tokenizer)),
    ):
        assert isinstance(again, CasedTokenizer)
        assert again.encode("A Café", 9, True).tolist() == words.encode("A Café").tolist()
    trained = CasedTokenizer.train(["A Dog", "a dog"] * 3, 60)
    assert trained.encode("A", 9, False).tolist() != trained.encode("a", 9, False).tolist()


def test_at_least_one_word_is_to_be_predicted(words: UniterWords) -> None:
    ids, rng = words.encode("a Dog in a Café"), np.random.default_rng(0)
    data = DataConfig(mlm_probability=0.001)
    masked, chosen = words.mask(ids, data, rng)
    assert chosen.tolist() == [False, True] + [False] * (len(ids) - 2)
    assert masked[1] == words.tokenizer.mask_id
    assert ids[1] != masked[1]
    empty, none = words.mask(words.encode(""), data, rng)
    assert not none.any()
    assert empty.tolist() == words.encode("").tolist()
    assert not words.mask(ids, DataConfig(mlm_probability=0.0), rng)[1].any()


def test_replaced_words_are_never_special(words: UniterWords) -> None:
    ids, rng = words.encode("a Dog in a Café"), np.random.default_rng(0)
    found, hidden = set(), 0
    for _ in range(300):
        masked, chosen = words.mask(ids, DataConfig(mlm_probability=0.99), rng)
        assert masked[~chosen].tolist() == ids[~chosen].tolist()
        found |= set(masked[chosen & (masked != words.tokenizer.mask_id)].tolist())
        hidden += int((masked == words.tokenizer.mask_id).sum())
    assert found == set(range(PIECES.index("!"), len(PIECES)))
    assert hidden / (300 * 6) == pytest.approx(0.8, abs=0.05)
