"""Starts a head of listed answers from a model that scores another list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

# The last layer of a head of classes or of listed answers: a row for each.
LAST = ("classifier.out", "answer_head.out", "answer_head")
ARTICLES = ("a ", "an ", "the ")
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
SAME = {word: str(number) for number, word in enumerate(NUMBERS, 1)} | {"grey": "gray"}


def with_answers(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], known: Sequence[str], wanted: Sequence[str]
) -> dict[str, Tensor]:
    """A model's weights, with a row for each answer that is wanted where it scores other answers or classes.

    `own` are the weights to be filled. A known answer keeps its row, by its name, and another gets zeros, as LXMERT is
    published. Without both lists a head of another size is left out.
    """
    found = dict(state)
    for last in LAST:
        weight, bias = f"{last}.weight", f"{last}.bias"
        if weight not in state or weight not in own:
            continue
        as_many = len(state[weight]) == len(known) and len(own[weight]) == len(wanted)
        if known and wanted and as_many:
            rows = rows_of(known, wanted)
            found |= {name: chosen(state[name], rows) for name in (weight, bias)}
        elif len(state[weight]) != len(own[weight]):  # of another task, or of unknown answers
            head = f"{last.partition('.')[0]}."
            found = {name: tensor for name, tensor in found.items() if not name.startswith(head)}
    return found


def rows_of(known: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """The row of each wanted answer among the known ones, -1 if it is none of them."""
    places = {key(answer): row for row, answer in reversed(list(enumerate(known)))}
    return [places.get(key(answer), -1) for answer in wanted]


def chosen(tensor: Tensor, rows: Sequence[int]) -> Tensor:
    """These rows of a tensor; zeros for -1."""
    index = torch.tensor(rows)
    picked = tensor[index.clamp(min=0)]
    picked[index < 0] = 0
    return picked


def key(answer: str) -> str:
    """By what two answers are the same: without case, a last point and articles, numbers to ten as digits."""
    answer = answer.lower()
    if answer.endswith("."):
        answer = answer[:-1].strip()
    for article in ARTICLES:
        if answer.startswith(article):
            answer = answer[len(article) :].strip()
    return SAME.get(answer, answer)
