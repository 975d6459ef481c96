"""OSCAR's texts: the tags of an image as tokens, and how a text and its tags share the room that there is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from albef.data.text import Tokenizer
from albef.data.words import Ids


def encode_tags(names: Sequence[str], tokenizer: Tokenizer, longest: int) -> Ids:
    """Ids of the names of objects and of the [SEP] behind them, at most `longest`. No names, no [SEP].

    Names stay in the detector's order, and repeated ones stay, as published.
    """
    ids = tokenizer.encode(" ".join(names), longest + 1, append_sep=True)[1:]
    return ids if len(ids) > 1 else ids[:0]


def cut_pair(
    text: Int64[np.ndarray, " text"], tags: Int64[np.ndarray, " tags"], longest: int
) -> tuple[Int64[np.ndarray, " cut_text"], Int64[np.ndarray, " cut_tags"]]:
    """A text and its tags cut to `longest` tokens in all, each with its special tokens at its ends.

    While they are too long, the longer of the two loses its last token, the tags if both are equally long. So it is
    published for pre-training, questions and NLVR². For retrieval `Tags.cut` leaves the text as it is.
    """
    words, names = len(text) - 2, max(0, len(tags) - 1)
    room = longest - (3 if names else 2)
    kept = min(words, max(room - names, -(-room // 2))) if names else min(words, room)
    kept_names = min(names, room - kept)
    return shortened(text, kept + 2), shortened(tags, kept_names + 1) if kept_names > 0 else tags[:0]


def shortened(ids: Ids, most: int) -> Int64[np.ndarray, " shortened"]:
    """A copy of at most so many ids, which ends in the last of them, [SEP]."""
    return ids.copy() if len(ids) <= most else np.concatenate([ids[: most - 1], ids[-1:]])
