"""VQA v2: questions, the ten answers that people gave to each, and the list of answers to rank."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from albef.config import UserError
from albef.data.prepare.reading import Row, find, number_at, objects, objects_at, search
from albef.data.prepare.writing import Files, Training
from albef.data.rows import text_at

# An answer is listed if it is the most frequent answer of at least so many training questions, as usual for VQA v2.
OFTEN = 9
TESTS = {"test": "test2015", "test-dev": "test-dev2015"}


def vqa(source: Path, files: Files) -> Training:
    """Writes vqa_train.json, vqa_val.json and answer_list.json, and vqa_test.json and vqa_test-dev.json if available.

    The list has the most frequent answers first.
    """
    listed: Counter[str] = Counter()
    for split in ("train", "val"):
        questions = find(
            source,
            f"v2_OpenEnded_mscoco_{split}2014_questions.json",
            origin=f"VQA v2, v2_Questions_{split.capitalize()}_mscoco.zip",
        )
        annotations = find(
            source,
            f"v2_mscoco_{split}2014_annotations.json",
            origin=f"VQA v2, v2_Annotations_{split.capitalize()}_mscoco.zip",
        )
        answers = read_answers(annotations, listed)
        files.rows(f"vqa_{split}.json", "vqa", question_rows(questions, f"{split}2014", files, answers))
    for split, name in TESTS.items():
        tests = search(source, f"v2_OpenEnded_mscoco_{name}_questions.json")
        if tests:
            files.rows(f"vqa_{split}.json", "vqa", question_rows(tests, "test2015", files, None))
    frequent = [answer for answer, count in listed.most_common() if count >= OFTEN]
    if not frequent:
        raise UserError(
            f"{source}: no answer is the most frequent one of {OFTEN} questions, so the annotations of VQA v2 are "
            f"incomplete. Download them again."
        )
    files.document("answer_list.json", frequent)
    names = {"source": "vqa_train.json", "validation": "vqa_val.json", "answer_list": "answer_list.json"}
    return Training("vqa", names)


def read_answers(annotations: Path, listed: Counter[str]) -> dict[int, list[str]]:
    """The ten answers to each question. Its most frequent answer is counted in `listed`."""
    answers: dict[int, list[str]] = {}
    for where, row in objects(annotations, "annotations"):
        # There are millions of answers, but few different ones.
        given = [sys.intern(text_at(one, "answer", where)) for one in objects_at(row, "answers", where)]
        answers[number_at(row, "question_id", where)] = given
        listed[text_at(row, "multiple_choice_answer", where)] += 1
    return answers


def question_rows(
    questions: Path, images: str, files: Files, answers: dict[int, list[str]] | None
) -> Iterator[Row]:
    """A row per question, with people's answers unless it is a test question."""
    folder = files.images(images, origin=f"COCO, {images}.zip")
    for where, row in objects(questions, "questions"):
        number = number_at(row, "question_id", where)
        question = {
            "dataset": "vqa",
            "image": str(folder / f"COCO_{images}_{number_at(row, 'image_id', where):012d}.jpg"),
            "question": text_at(row, "question", where),
            "question_id": number,
        }
        if answers is not None:
            if number not in answers:
                raise UserError(f'{where}: "question_id" is {number}, but the annotations have no such id.')
            question["answer"] = answers[number]
        yield where, question
