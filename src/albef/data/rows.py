"""Checks the rows of annotation files, in the published format of each task, and makes them uniform."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pyarrow as pa

from albef.config import TaskName, UserError
from albef.data.records import stable_id
from albef.data.text_files import quoted

ENTAILMENT_LABELS = ("contradiction", "neutral", "entailment")
NLVR_LABELS = ("False", "True")
MAX_PIXELS = 1e9  # largest coordinate of a box: far beyond every image, but still safe to compute with
VQA_WEIGHT, VG_WEIGHT = 1.0, 0.5  # total weight of the answers to a question

# The columns of all tasks. Columns that a task does not use are null.
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
        ("official", pa.bool_()),
        ("key", pa.large_string()),
        ("box", pa.large_list(pa.float64())),
    ]
)
NAMES = tuple(SCHEMA.names)
Columns = dict[str, Any]


class Judged(NamedTuple):
    """The key that a row is evaluated by (and that VQA also learns from). Rows without it are valid too."""

    key: str
    column: str
    rows: str  # what the rows are, in messages
    learned: bool = (
        False  # True: training needs it, predicting does not. False: evaluation needs it, training does not
    )


# Other tools' names for these keys.
OTHER_NAMES = {
    "image": ("filepath", "file_name", "filename", "path", "img"),
    "images": ("image", "left"),
    "caption": ("title", "text", "sentence", "TEXT", "raw"),
    "question": ("text", "sent"),
    "sentence": ("text", "hypothesis", "statement", "caption"),
    "text": ("phrase", "caption", "sentence", "expression", "sent"),
    "label": ("gold_label", "answer"),
    "box": ("bbox",),
}
IDS = {"image_id", "question_id", "ref_id"}  # never suggested for another missing key
LONGEST_KEY = 60  # keys are compared by so many characters

OFFICIAL_DATASET, OFFICIAL_PEOPLE = (
    "vqa",
    10,
)  # the data set and number of people of VQA v2's official evaluation


def pair_row(row: dict[str, Any], where: str) -> Columns:
    """An image and its captions: {"image", "caption": text or list of texts, "image_id": anything}."""
    image_id = name_at(row, "image_id", where)
    return {
        "image": text_at(row, "image", where),
        "captions": texts_at(row, "caption", where),
        "image_id": stable_id(image_id) if image_id else None,
    }


def vqa_row(row: dict[str, Any], where: str) -> Columns:
    """A question: {"image", "question", "answer": text or list of texts (none in a test set), "question_id"}.

    Answers with "dataset": "vg" have half the weight, as published. Ten answers with "dataset": "vqa" are judged by the
    official rule.
    """
    answers = [] if row.get("answer") is None else texts_at(row, "answer", where)
    if not any(answer.strip() for answer in answers):
        answers = []
    whole = VG_WEIGHT if row.get("dataset") == "vg" else VQA_WEIGHT
    return {
        "image": text_at(row, "image", where),
        "captions": [text_at(row, "question", where)],
        "answers": answers,
        "answer_weights": [whole / len(answers) for _ in answers],
        "official": row.get("dataset") == OFFICIAL_DATASET and len(answers) == OFFICIAL_PEOPLE,
        "key": name_at(row, "question_id", where),
    }


def entailment_row(row: dict[str, Any], where: str) -> Columns:
    """A sentence about an image: {"image": name without .jpg, "sentence", "label": one of `ENTAILMENT_LABELS`}."""
    image = text_at(row, "image", where)
    return {
        "image": image if "." in image.rpartition("/")[2] else f"{image}.jpg",
        "captions": [text_at(row, "sentence", where)],
        "label": label_at(row, ENTAILMENT_LABELS, where),
    }


def nlvr_row(row: dict[str, Any], where: str) -> Columns:
    """A statement about two images: {"images": [first, second], "sentence", "label": "True" or "False"}."""
    images = texts_at(row, "images", where)
    if len(images) != 2:
        raise UserError(
            f'{where}: "images" must name two images, found {len(images)}; write ["left.png", "right.png"].'
        )
    return {
        "image": images[0],
        "second_image": images[1],
        "captions": [text_at(row, "sentence", where)],
        "label": label_at(row, NLVR_LABELS, where),
        "key": name_at(row, "identifier", where),
    }


def grounding_row(row: dict[str, Any], where: str) -> Columns:
    """A phrase for a thing in an image: {"image", "text", "ref_id", "box": [left, top, width, height]}.

    "ref_id" and "box" are for evaluation. All phrases of an image are its positives, as published.
    """
    box = row.get("box")
    if box == "":  # an empty cell of a table
        box = None
    if box is not None and not is_box(box):
        raise UserError(f'{where}: "box" must be [left, top, width, height] in pixels.')
    return {
        "image": text_at(row, "image", where),
        "captions": [text_at(row, "text", where)],
        "key": name_at(row, "ref_id", where),
        "box": box,
    }


def is_box(box: object) -> bool:
    """Whether a value is a box [left, top, width, height] with a size above 0."""
    return isinstance(box, list) and len(box) == 4 and are_pixels(box) and min(box[2:]) > 0


def are_pixels(sides: list[object]) -> bool:
    """Whether all are finite numbers of pixels, without NaN."""
    return all(type(side) in (int, float) and -MAX_PIXELS <= side <= MAX_PIXELS for side in sides)  # type: ignore[operator]


class Rows(NamedTuple):
    """How a task's rows are read, and which other sources have the same content."""

    read: Callable[[dict[str, Any], str], Columns]
    required: tuple[str, ...]  # keys that every row of the task must have
    judged: Judged | None = None
    folder: bool = False  # a folder of images with a .txt beside each will do too
    scenes: bool = False  # the plain scenes of pictograms will do too


PAIRS = Rows(pair_row, ("image", "caption"), folder=True, scenes=True)
ROWS: dict[TaskName, Rows] = {
    "pretrain": PAIRS,
    "text_assignment": PAIRS,
    "retrieval": PAIRS,
    "vqa": Rows(vqa_row, ("image", "question"), Judged("answer", "answers", "questions", learned=True)),
    "entailment": Rows(entailment_row, ("image", "sentence", "label")),
    "nlvr": Rows(nlvr_row, ("images", "sentence", "label")),
    "grounding": Rows(grounding_row, ("image", "text"), Judged("box", "box", "phrases"), scenes=True),
}


def columns(row: object, task: TaskName, where: str) -> Columns:
    """The row in the columns of `SCHEMA`. Raises `UserError` if it is not a row of that task."""
    if not isinstance(row, dict):
        raise UserError(f"{where}: expected an object with keys and values, found {kind(row)}.")
    return dict.fromkeys(NAMES) | ROWS[task].read(row, where)


def text_at(row: dict[str, Any], key: str, where: str) -> str:
    """The text under a key."""
    require_key(row, key, where)
    if not isinstance(row[key], str):
        raise UserError(f'{where}: "{key}" must be a text, found {kind(row[key])}.')
    return str(row[key])


def texts_at(row: dict[str, Any], key: str, where: str) -> list[str]:
    """The texts under a key. A single text need not be a list."""
    require_key(row, key, where)
    texts = [row[key]] if isinstance(row[key], str) else row[key]
    if not isinstance(texts, list):
        raise UserError(f'{where}: "{key}" must be a text or a list of texts, found {kind(texts)}.')
    for text in texts:
        if not isinstance(text, str):
            raise UserError(
                f'{where}: "{key}" must be a text or a list of texts, found a list with {kind(text)}.'
            )
    return texts


def name_at(row: dict[str, Any], key: str, where: str) -> str:
    """The data set's own id of something, a text or a number. Empty if there is none.

    In tables with gaps, tools turn numbers into decimals and gaps into NaN: so 7.0 is "7", and NaN is a gap.
    """
    value = row.get(key)
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise UserError(f'{where}: "{key}" must be a text or a number, found {kind(value)}.')
    return str(value)


def label_at(row: dict[str, Any], labels: tuple[str, ...], where: str) -> int:
    """The number of the row's label."""
    label = text_at(row, "label", where)
    if label not in labels:
        raise UserError(f'{where}: "label" is {quoted(label)}; it must be one of {", ".join(labels)}.')
    return labels.index(label)


def require_key(keys: Iterable[str], key: str, where: str) -> None:
    """Raises `UserError` if a key is missing, and names the most similar key that is there."""
    if key not in keys:
        near = nearest(keys, key)
        names = ", ".join(quoted(name)[1:-1] for name in list(keys)[:10])
        found = f"rename {quoted(near)}" if near else f"found only {names or 'nothing'}"
        raise UserError(f'{where}: the key "{key}" is missing; {found}.')


def nearest(keys: Iterable[str], key: str) -> str:
    """The key that was probably meant for a missing one. Empty if none is similar."""
    found = [str(name) for name in keys if name not in IDS and name != key]
    alike = difflib.get_close_matches(key, [name[:LONGEST_KEY] for name in found], n=1, cutoff=0.5)
    other = [name for name in OTHER_NAMES.get(key, ()) if name in found]
    return next(iter(alike + other), "")


def kind(value: object) -> str:
    """What a JSON value is, in words."""
    kinds = {dict: "an object", list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")
