"""Answers as the official VQA evaluation compares them: normalised, and scored by how many people gave them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float32

AnswerType = Literal["yes_no", "number", "other"]
ENOUGH = 3  # an answer that so many people gave counts fully

_ARTICLES = {"a", "an", "the"}
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_DIGITS)} | {"none": "0"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
# Words whose missing apostrophes are restored.
_WITH_APOSTROPHE = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's i'd've i'm
i've isn't it'd it'll let's ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't she'd've
should've shouldn't somebody'd somebody'll somebody's someone'd someone'll someone's something'd something'll that's
there'd there're there's they'd they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'll who's who've why'll why're why's won't would've wouldn't y'all you'd you'll
you're you've
"""
_CONTRACTIONS = {word.replace("'", ""): word for word in _WITH_APOSTROPHE.split()}


def normalise_answer(answer: str) -> str:
    """The answer in lower case, with digits for number words, without articles and most punctuation."""
    text = given = answer.replace("\n", " ").replace("\t", " ").strip()
    for sign in _PUNCTUATION:
        beside_space = f"{sign} " in given or f" {sign}" in given
        gone = beside_space or _COMMA_IN_NUMBER.search(given) is not None
        text = text.replace(sign, "" if gone else " ")
    words = _PERIOD.sub("", text).lower().split()
    words = [_NUMBERS.get(word, word) for word in words]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def comparable(answer: str) -> str:
    """The key by which answers are equal: the normalised text, or the whole text if nothing is left ("A", "!")."""
    return normalise_answer(answer) or " ".join(answer.lower().split())


def most_frequent(answers: Iterable[str]) -> list[str]:
    """The different answers, most frequent first. Equal answers appear in their most frequent form."""
    counts: Counter[str] = Counter()
    forms: dict[str, str] = {}
    for form, count in Counter(answers).most_common():
        counts[comparable(form)] += count
        forms.setdefault(comparable(form), form)
    return [forms[answer] for answer, _ in counts.most_common()]


def soft_accuracy(answer: str, given: Sequence[str], official: bool = False) -> float:
    """The soft accuracy of an answer, 0–1: min(matches / 3, 1), averaged over leaving out one person at a time.

    With three people two matches are enough, with fewer people one. `official` follows the evaluation of VQA v2: it
    always needs three matches, it normalises nothing (not even case) if all people agree, and all answers of which
    nothing is left are equal.
    """
    if len(given) < ENOUGH:
        return float(comparable(answer) in {comparable(one) for one in given})
    answer, people, enough = answer.strip(), [one.strip() for one in given], ENOUGH
    if not official:
        answer, people = comparable(answer), [comparable(one) for one in people]
        enough = min(ENOUGH, len(people) - 1)
    elif len(set(people)) > 1:
        answer, people = normalise_answer(answer), [normalise_answer(one) for one in people]
    matches = [one == answer for one in people]
    total = sum(matches)
    return sum(min((total - own) / enough, 1.0) for own in matches) / len(people)


class ListedAnswers:
    """A list of answers that a model chooses from. Equal answers (see `comparable`) count as the last one."""

    def __init__(self, answers: Sequence[str]) -> None:
        self.answers = tuple(answers)
        self.number_of = {comparable(answer): number for number, answer in enumerate(answers)}

    def scores(self, given: Sequence[str], official: bool = False) -> Float32[np.ndarray, " listed"]:
        """The soft accuracy of each listed answer, if people gave these."""
        scores = np.zeros(len(self.answers), np.float32)
        for answer in set(given):
            if (number := self.number_of.get(comparable(answer))) is not None:
                scores[number] = soft_accuracy(answer, given, official)
        return scores


def sample_answer(scores: Float32[np.ndarray, " listed"], rng: np.random.Generator) -> int:
    """The number of a listed answer, drawn with its score as weight (LXMERT, pre-training). -1: all scores are 0."""
    total = float(scores.sum())
    return int(rng.choice(len(scores), p=scores / total)) if total else -1


def answer_type(answer: str) -> AnswerType:
    """The official kinds of answers."""
    plain = normalise_answer(answer)
    if plain in ("yes", "no"):
        return "yes_no"
    return "number" if plain.replace(".", "", 1).isdigit() else "other"
