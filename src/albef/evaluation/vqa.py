"""Accuracy of answers to questions, by the official soft accuracy (paper §5.3)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from albef import distributed
from albef.config import UserError
from albef.data.annotations import AnnotationSource
from albef.data.answers import answer_type, comparable, most_frequent, soft_accuracy
from albef.data.images import BadImage
from albef.data.sources import Source
from albef.engine import Engine
from albef.evaluation.evaluate import Metric
from albef.evaluation.judged import Judged, cluster_of, judged_metrics, of_all, shown
from albef.writing import write_json

PAINTED = 20_000  # questions about pictograms whose answers are counted

Way = Literal["ranked", "open"]


@dataclass(frozen=True)
class Asking:
    """How questions are answered."""

    answers: Sequence[str]  # to rank; empty: nothing is ranked
    k: int  # so many are scored as a whole
    beams: int = 1  # beam width for freely written answers; 1 = greedy
    count_first_token_twice: bool = False


def judge_answers(
    engine: Engine, source: Source, asked: Asking, shuffled: bool, bad: dict[int, BadImage]
) -> Iterator[dict[Way, Judged]]:
    """The best answer of the list to each question (if there is a list), and the freely written answer (if it writes).

    The score is the official soft accuracy. NaN if the data give no answer.
    """
    for batch in shown(engine, source, shuffled, bad):
        best = answers_to(engine, [record.captions[0] for record in batch.records], batch.visual, asked)
        for row, (index, record) in enumerate(zip(batch.indices, batch.records, strict=True)):
            expected = next(iter(most_frequent(record.answers)), "")
            found: dict[Way, Judged] = {}
            for way, answers in best.items():
                answer, chance = answers[row][0]
                score = soft_accuracy(answer, record.answers, record.official) if record.answers else math.nan
                found[way] = Judged(index, expected, answer, chance, score, cluster_of(record))
            yield found


def answers_to(
    engine: Engine, questions: Sequence[str], visual: Any, asked: Asking
) -> dict[Way, list[list[tuple[str, float]]]]:
    """For each question its best answers and their probabilities, in the ways that the model has."""
    if engine.model.lists_answers:
        return {"ranked": engine.listed_answers(questions, visual, asked.answers, 1)}
    memory = engine.question_memory(questions, visual)
    written: dict[Way, list[list[tuple[str, float]]]] = {"open": engine.written_answers(memory, asked.beams)}
    if not asked.answers:
        return written
    ranked = engine.ranked_answers(memory, asked.answers, asked.k, asked.count_first_token_twice)
    return {"ranked": ranked, **written}


def evaluate_vqa(
    engine: Engine,
    source: Source,
    asked: Asking,
    name: str,
    shuffled: bool = False,
    results: Path | None = None,
) -> Iterator[Metric]:
    """ "{name}/accuracy" of ranked answers and "{name}/open_accuracy" of freely written ones, with intervals.

    Both also by type of answer ("…_yes_no", "…_number", "…_other"). `results` gets a file in the format of the official
    server: every question exactly once, with an empty answer if its image is unreadable. Its answers are ranked ones if
    there is a list. For data without answers, only "{name}/count" and "{name}/skipped" are left; without `results` such
    data raise `UserError`.
    """
    if results is None:
        check_answered(source)
    found, bad = of_all(lambda bad: judge_answers(engine, source, asked, shuffled, bad))
    if results is not None and distributed.rank() == 0:
        firsts = [next(iter(ways.values())) for ways in found]  # ranked, if there is a list
        write_results(results, source, {first.index: first.answered for first in firsts})
    known = [ways for ways in found if all(one.expected for one in ways.values())]
    if found and not known:
        yield f"{name}/count", float(len(found))
        yield f"{name}/skipped", float(len(bad))
        return
    ways_of: tuple[Way, ...] = tuple(known[0]) if known else ("ranked",)
    for way in ways_of:
        metric = "accuracy" if way == "ranked" else "open_accuracy"
        ones = [ways[way] for ways in known]
        yield from judged_metrics(name, ones, bad, lambda one: answer_type(one.expected), metric)


def check_answered(source: Source) -> None:
    """Raises `UserError` for questions that nobody has answered."""
    if isinstance(source, AnnotationSource) and source.none_judged:
        raise UserError(source.none_judged)


def write_results(file: Path, source: Source, answered: dict[int, str]) -> None:
    """Writes [{"question_id", "answer"}] with every question once. Raises `UserError` for a question without an id."""
    rows: dict[str, str] = {}
    for index in range(len(source)):
        record = source.record(index, 0)
        if not record.key:
            raise UserError(
                f'{record.origin}: the key "question_id" is missing, but the result file needs it. Add it, or leave '
                f"--results out."
            )
        rows[record.key] = answered.get(index, "")
    results = [{"question_id": int(k) if k.isdigit() else k, "answer": a} for k, a in rows.items()]
    write_json(file, results)


def frequent_answers(source: Source, most: int = 3192) -> list[str]:
    """The most frequent answers in training data, as many as the paper ranks. Equal answers count as one.

    In a file all questions count. Of pictograms only the first ones count, since each needs an image to be drawn.
    """
    counted = len(source) if isinstance(source, AnnotationSource) else min(len(source), PAINTED)
    return most_frequent(answer for index in range(counted) for answer in source.record(index, 0).answers)[
        :most
    ]


def check_answers(file: Path, answers: Sequence[str], source: Source) -> None:
    """Raises `UserError` for a list without any answer of the data."""
    listed = {comparable(answer) for answer in answers}
    given = [answer for index in range(min(len(source), 1000)) for answer in source.record(index, 0).answers]
    if given and not any(comparable(answer) in listed for answer in given):
        raise UserError(
            f"{file}: has none of the answers of the data, such as {given[0]!r}. Make the list from the training "
            f"answers, or leave it out."
        )
