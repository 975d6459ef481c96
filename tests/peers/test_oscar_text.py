"""Tags as tokens, and the room that they share with their text."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from albef.data.text import Tokenizer
from albef.data.words import Ids
from albef.peers.oscar_text import cut_pair, encode_tags

BERT = Tokenizer.bert()
CLS, SEP = BERT.cls_id, BERT.sep_id
words = st.lists(st.integers(1000, 9000), max_size=12)


def closed(ids: list[int], *before: int) -> Ids:
    return np.array([*before, *ids, SEP], dtype=np.int64)


def test_tags_are_the_names_in_their_order() -> None:
    ids = encode_tags(["Sofa", "remote control", "sofa"], BERT, longest=20)
    text = BERT.encode("sofa remote control sofa", 20, append_sep=True)
    assert ids.tolist() == text[1:].tolist()
    assert ids[-1] == SEP
    assert (ids[0], len(ids)) == (ids[-2], 5)


def test_long_tags_end_in_sep() -> None:
    ids = encode_tags(["sofa"] * 9, BERT, longest=4)
    assert ids.tolist() == [ids[0]] * 3 + [SEP]


def test_no_names_no_sep() -> None:
    assert len(encode_tags([], BERT, longest=4)) == 0
    assert len(encode_tags([" "], BERT, longest=4)) == 0


@given(words, words, st.integers(5, 30))
def test_the_longer_of_text_and_tags_loses_its_last_token(
    text: list[int], names: list[int], longest: int
) -> None:
    """The published loop, token by token."""
    left, right = list(text), list(names)
    while len(left) + len(right) > longest - (3 if names else 2):
        (left if len(left) > len(right) else right).pop()
    tags = closed(names) if names else np.zeros(0, dtype=np.int64)
    given_text = closed(text, CLS)
    found_text, found_tags = cut_pair(given_text, tags, longest)
    assert found_text.tolist() == closed(left, CLS).tolist()
    assert found_tags.tolist() == (closed(right).tolist() if right else [])


def test_cut_texts_are_copies() -> None:
    """Both images of an example share the text, and neither may shorten it for the other."""
    text, tags = closed([1000] * 4, CLS), closed([2000])
    for longest in (5, 30):
        before = text.copy()
        found, _ = cut_pair(text, tags, longest)
        found[:] = 0
        assert text.tolist() == before.tolist()
