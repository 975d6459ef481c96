"""The words of a report that a newcomer may not know, with their meanings."""

from __future__ import annotations

import re
from collections.abc import Iterable

from albef.report import page

MEANINGS = {
    "ITC": "image–text contrast. Each image and each text becomes one vector. ITC compares these two vectors.",
    "ITM": "image–text matching. The model reads image and text together, and says whether they belong together. It "
    "orders the best candidates of ITC again.",
    "MLM": "masked language modelling. The model fills in hidden words of a caption, with the help of the image.",
    "R@k": "recall at k. The share of queries whose right answer is among the first k.",
    "95 % interval": "a range that holds the true value in 95 of 100 such measurements.",
    "gallery": "all images (or captions) that are ranked for a query.",
    "split": "a part of the data, such as “test”.",
    "foil": "a caption with one thing changed, so that it is false.",
    "blind": "a control: every image is replaced by another one. What is still right then comes from the text alone, "
    "or from chance.",
    "chance": "what guessing would give.",
    "teacher": "a slowly moving average of the model during training. It tells which other captions would fit an image.",
    "mutual information": "how much an image and its text tell about each other. 1 nat is 1.44 bits.",
    "batch": "the pairs of one training step.",
    "queue": "features of earlier pairs, which ITC compares with as well.",
    "patch": "a square part of an image. The model sees an image as a grid of patches.",
    "IoU": "intersection over union. How well two boxes agree, from 0 (apart) to 1 (equal).",
    "unseen vendor": "drawings from a source that the training did not use.",
    "unseen pair": "two things that the training never showed together.",
    "unseen background": "things on a background that the training never showed them on.",
    "unseen template": "captions with wordings that the training did not use.",
    "noisy": "captions that were made false on purpose, to see whether the training can bear them.",
}


def words_section(body: Iterable[str]) -> str:
    """The words that stand in a report, with their meanings; empty if there are none."""
    said = re.sub(r"<style>.*?</style>|<[^>]*>", " ", " ".join(body), flags=re.DOTALL)
    found = [(word, meaning) for word, meaning in MEANINGS.items() if is_said(word, said)]
    if not found:
        return ""
    return f"<section>\n<h2>Words in this report</h2>\n{page.words(found)}\n</section>"


def is_said(word: str, said: str) -> bool:
    """Whether a word or its plural stands in a text. R@k stands for R@1 and so on."""
    pattern = r"R@\d" if word == "R@k" else rf"\b{re.escape(word)}(s|es)?\b"
    if word.isupper() or word == "IoU":
        return re.search(pattern, said) is not None
    return re.search(pattern, said, flags=re.IGNORECASE) is not None
