"""What a row of each task's annotation file must hold, in the published formats, checked and made uniform."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

import pyarrow as pa

from albef.config import TaskName, UserError
from albef.data.records import stable_id

ENTAILMENT_LABELS = ("contradiction", "neutral", "entailment")
NLVR_LABELS = ("False", "True")
LONGEST_QUOTED = 60  # characters of what stands in a file, in messages
VQA_WEIGHT, VG_WEIGHT = 1.0, 0.5  # of all answers to a question together

# The columns of every task; what a task does not have is null there.
SCHEMA = pa.schema(
    [
        ("place", pa.large_string()),
        ("image", pa.large_string()),
        ("captions", pa.large_list(pa.large_string())),
        ("image_id", pa.int64()),
        ("second_image", pa.large_string()),
        ("label", pa.int64()),
        ("answers", pa.large_list(pa.large_string())),
        ("answer_weights", pa.large_list(pa.float32())),
        ("key", pa.large_string()),
        ("box", pa.large_list(pa.float64())),
    ]
)
Columns = dict[str, Any]


def pair_row(row: dict[str, Any], where: str) -> Columns:
    """A picture and its captions: {"image", "caption": text or list of texts, "image_id": anything}."""
    image_id = row.get("image_id")
    return {
        "image": text_at(row, "image", where),
        "captions": texts_at(row, "caption", where),
        "image_id": None if image_id in (None, "") else stable_id(str(image_id)),
    }


def vqa_row(row: dict[str, Any], where: str) -> Columns:
    """A question: {"image", "question", "answer": text or list of texts (none in a test set), "question_id"}.

    Answers of "dataset": "vg" weigh half, as published.
    """
    answers = texts_at(row, "answer", where) if "answer" in row else []
    whole = VG_WEIGHT if row.get("dataset") == "vg" else VQA_WEIGHT
    return {
        "image": text_at(row, "image", where),
        "captions": [text_at(row, "question", where)],
        "answers": answers,
        "answer_weights": [whole / len(answers) for _ in answers],
        "key": str(row.get("question_id", "")),
    }


def entailment_row(row: dict[str, Any], where: str) -> Columns:
    """A sentence about a picture: {"image": name without .jpg, "sentence", "label": one of `ENTAILMENT_LABELS`}."""
    image = text_at(row, "image", where)
    return {
        "image": image if "." in image.rpartition("/")[2] else f"{image}.jpg",
        "captions": [text_at(row, "sentence", where)],
        "label": label_at(row, ENTAILMENT_LABELS, where),
    }


def nlvr_row(row: dict[str, Any], where: str) -> Columns:
    """A statement about two pictures: {"images": [first, second], "sentence", "label": "True" or "False"}."""
    images = texts_at(row, "images", where)
    if len(images) != 2:
        raise UserError(
            f'{where}: "images" must name two pictures, found {len(images)}; write ["left.png", "right.png"].'
        )
    return {
        "image": images[0],
        "second_image": images[1],
        "captions": [text_at(row, "sentence", where)],
        "label": label_at(row, NLVR_LABELS, where),
        "key": str(row.get("identifier", "")),
    }


def grounding_row(row: dict[str, Any], where: str) -> Columns:
    """A phrase for a thing in a picture: {"image", "text", "ref_id", "box": [left, top, width, height]}.

    The last two are for evaluation. Phrases of one picture are positives of it, as published.
    """
    image, box = text_at(row, "image", where), row.get("box")
    if box is not None and not (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(side, int | float) and not isinstance(side, bool) for side in box)
        and min(box[2:]) > 0
    ):
        raise UserError(f'{where}: "box" must be [left, top, width, height] in pixels.')
    return {
        "image": image,
        "captions": [text_at(row, "text", where)],
        "image_id": stable_id(image),
        "key": str(row.get("ref_id", "")),
        "box": box,
    }


ROWS: dict[TaskName, Callable[[dict[str, Any], str], Columns]] = {
    "pretrain": pair_row,
    "text_assignment": pair_row,
    "retrieval": pair_row,
    "vqa": vqa_row,
    "entailment": entailment_row,
    "nlvr": nlvr_row,
    "grounding": grounding_row,
}


def columns(row: object, task: TaskName, where: str) -> Columns:
    """The row as `SCHEMA` has it; raises `UserError` when it is none of that task's."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object with keys and values, found {kind(row)}.")
    return dict.fromkeys(SCHEMA.names) | ROWS[task](row, where)


def text_at(row: dict[str, Any], key: str, where: str) -> str:
    """The text under a key."""
    require_key(row, key, where)
    if not isinstance(row[key], str):
        raise UserError(f'{where}: "{key}" must be a text, found {kind(row[key])}.')
    return str(row[key])


def texts_at(row: dict[str, Any], key: str, where: str) -> list[str]:
    """The texts under a key; a single one need not be a list."""
    require_key(row, key, where)
    texts = [row[key]] if isinstance(row[key], str) else row[key]
    if not (isinstance(texts, list) and all(isinstance(text, str) for text in texts)):
        raise UserError(f'{where}: "{key}" must be a text or a list of texts, found {kind(row[key])}.')
    return texts


def label_at(row: dict[str, Any], labels: tuple[str, ...], where: str) -> int:
    """The number of the row's label."""
    label = text_at(row, "label", where)
    if label not in labels:
        raise UserError(
            f'{where}: "label" is "{label[:LONGEST_QUOTED]}"; it must be one of {", ".join(labels)}.'
        )
    return labels.index(label)


def require_key(keys: Iterable[str], key: str, where: str) -> None:
    """Raises `UserError`, with the nearest key that is there, when one is missing."""
    keys = [str(found)[:LONGEST_QUOTED] for found in keys]
    if key not in keys:
        nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
        found = f'rename "{nearest[0]}"' if nearest else f"found only {', '.join(keys[:10]) or 'nothing'}"
        raise UserError(f'{where}: the key "{key}" is missing; {found}.')


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
