"""Visual Genome: descriptions of regions for pre-training, questions and answers for VQA."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from albef.config import UserError
from albef.data.prepare.reading import Row, number_at, objects, objects_at, search
from albef.data.prepare.writing import Files, Training
from albef.data.rows import text_at

FOLDERS = ("VG_100K", "VG_100K_2")  # images.zip and images2.zip


def visual_genome(source: Path, files: Files) -> Training:
    """Writes vg.json and vg_qa.json if their annotation files are there. One of them must be."""
    regions, questions = search(source, "region_descriptions.json"), search(source, "question_answers.json")
    if not regions and not questions:
        raise UserError(
            f"{source}: neither region_descriptions.json nor question_answers.json is here or below. Both are "
            f"downloads of Visual Genome 1.2."
        )
    folders = [folder for folder in (search(source, name) for name in FOLDERS) if folder]
    if not folders:
        folders = [source / files.images(*FOLDERS, origin="Visual Genome, images.zip and images2.zip")]
    if questions:
        files.rows("vg_qa.json", "vqa", question_rows(questions, folders, source))
    if not regions:
        return Training("vqa", {"source": "vg_qa.json", "answer_list": ""})
    files.rows("vg.json", "pretrain", caption_rows(regions, folders, source))
    return Training("own-data", {"source": "vg.json"})


def caption_rows(annotations: Path, folders: list[Path], source: Path) -> Iterator[Row]:
    """A row per image with the phrases of all its regions. Training draws one of them each time."""
    for where, row in objects(annotations):
        phrases = [text_at(region, "phrase", where).strip() for region in objects_at(row, "regions", where)]
        if phrases:  # a few images have no regions
            number = image_number(row, where)
            image = image_path(number, folders, source)
            yield where, {"image": image, "caption": phrases, "image_id": f"vg_{number}"}


def question_rows(annotations: Path, folders: list[Path], source: Path) -> Iterator[Row]:
    """A row per question with its single answer, which has half the weight of a VQA question's ten answers."""
    for where, row in objects(annotations):
        for qa in objects_at(row, "qas", where):
            yield (
                where,
                {
                    "dataset": "vg",
                    "image": image_path(image_number(row, where), folders, source),
                    "question": text_at(qa, "question", where),
                    # VQA's answers are in lower case without a full stop.
                    "answer": text_at(qa, "answer", where).strip().removesuffix(".").lower(),
                    "question_id": number_at(qa, "qa_id", where),
                },
            )


def image_number(row: dict[str, Any], where: str) -> int:
    """The id of a row's image, which the files call "id" and the documentation "image_id"."""
    return number_at(row, "id" if "id" in row else "image_id", where)


def image_path(number: int, folders: list[Path], source: Path) -> str:
    """The path of an image in one of the two folders."""
    paths = [folder / f"{number}.jpg" for folder in folders]
    return str(next((path for path in paths if path.exists()), paths[0]).relative_to(source))
