"""easy-vqa (Victor Zhou): 48,248 questions about 5,000 images of one shape each, with 13 answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from albef.config import UserError
from albef.data.json_rows import json_rows
from albef.data.prepare.reading import Row, find
from albef.data.prepare.writing import Files, Training

ORIGIN = "the Python package easy-vqa (pip download easy-vqa, or its folder in site-packages)"


def easy_vqa(source: Path, files: Files) -> Training:
    """Writes easy_vqa_train.json, easy_vqa_test.json and answer_list.json."""
    answers = find(source, "easy_vqa/data/answers.txt", "data/answers.txt", origin=ORIGIN)
    for split in ("train", "test"):
        rows = question_rows(answers.parent / split, source)
        files.rows(f"easy_vqa_{split}.json", "vqa", rows)
    files.document("answer_list.json", answers.read_text("utf-8", errors="replace").split())
    names = {"source": "easy_vqa_train.json", "validation": "easy_vqa_test.json"}
    return Training("easy-vqa", names | {"answer_list": "answer_list.json"})


def question_rows(folder: Path, source: Path) -> Iterator[Row]:
    """The questions of a split, numbered in their order. Each row is a list: question, answer, number of the image."""
    path = find(folder, "questions.json", origin=ORIGIN)
    for number, (place, row) in enumerate(json_rows(path)):
        where = f"{path}, {place}"
        if not (isinstance(row, list) and [type(value) for value in row] == [str, str, int]):
            raise UserError(f"{where}: expected [question, answer, number of the image].")
        question, answer, image = row
        yield (
            where,
            {
                "dataset": "easy-vqa",
                "image": str((folder / "images" / f"{image}.png").relative_to(source)),
                "question": question,
                "answer": answer,
                "question_id": number,
            },
        )
