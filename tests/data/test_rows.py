"""The published rows of every task: what they become, and how a wrong one is explained."""

import json
from pathlib import Path

import pytest

from albef.config import DataConfig, TaskName, UserError
from albef.data.sources import open_source


def opened(folder: Path, task: TaskName, *rows: dict[str, object], **settings: str):
    (folder / "rows.json").write_text(json.dumps(list(rows)))
    return open_source(DataConfig(source=str(folder / "rows.json"), **settings), "test", 0, 16, task)


def test_questions_with_weighted_answers(tmp_path: Path) -> None:
    people = ["red"] * 7 + ["blue"] * 3
    source = opened(
        tmp_path,
        "vqa",
        {"dataset": "vqa", "image": "a.jpg", "question": "What colour?", "answer": people, "question_id": 7},
        {"dataset": "vg", "image": "b.jpg", "question": "Who?", "answer": "a man"},
        {"dataset": "vqa", "image": "b.jpg", "question": "Where?", "question_id": 8},
    )
    first, second, third = (source.record(index, 0) for index in range(3))
    assert first.captions == ("What colour?",)
    assert first.answers == tuple(people)
    assert sum(first.answer_weights) == pytest.approx(1.0)
    assert first.key == "7"
    assert (second.answers, second.answer_weights) == (("a man",), (0.5,))
    assert third.answers == ()


def test_sentences_statements_and_phrases(tmp_path: Path) -> None:
    row = {"image": "4564320256", "sentence": "A dog.", "label": "neutral"}
    record = opened(tmp_path, "entailment", row).record(0, 0)
    assert (record.image.name, record.label) == ("4564320256.jpg", 1)
    pair = {"images": ["l.png", "r.png"], "sentence": "Two dogs.", "label": "True", "identifier": "dev-1-2-0"}
    record = opened(tmp_path, "nlvr", pair).record(0, 0)
    assert (record.image.name, record.second_image.name, record.label, record.key) == (
        "l.png", "r.png", 1, "dev-1-2-0",
    )  # fmt: skip
    phrase = {"image": "x_000000000042.jpg", "text": "the dog", "ref_id": 5, "box": [1, 2, 3, 4]}
    record = opened(tmp_path, "grounding", phrase).record(0, 0)
    assert (record.captions, record.key, record.box) == (("the dog",), "5", (1.0, 2.0, 3.0, 4.0))
    other = opened(tmp_path, "grounding", phrase | {"text": "a cat"}).record(0, 0)
    assert other.image_id == record.image_id


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        (
            "vqa",
            {"image": "a.jpg", "questoin": "x"},
            r'row 1: the key "question" is missing; rename "questoin"',
        ),
        (
            "vqa",
            {"image": "a.jpg", "question": "x", "answer": 3},
            '"answer" must be a text or a list of texts',
        ),
        (
            "entailment",
            {"image": "a", "sentence": "x", "label": "maybe"},
            '"label" is "maybe"; .*contradiction',
        ),
        ("nlvr", {"images": ["a.png"], "sentence": "x", "label": "True"}, "two images, found 1"),
        ("nlvr", {"images": ["a", "b"], "sentence": "x", "label": "yes"}, "one of False, True"),
        ("grounding", {"image": "a.jpg", "text": "x", "box": [1, 2, 0, 4]}, "left, top, width, height"),
        ("grounding", {"image": "a.jpg", "text": "x", "box": [1, 2, True, 4]}, "left, top, width, height"),
    ],
)
def test_wrong_rows_are_explained(
    tmp_path: Path, task: TaskName, row: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        opened(tmp_path, task, row)


def test_proposals_come_by_the_pictures_number(tmp_path: Path) -> None:
    boxes = tmp_path / "dets.json"
    boxes.write_text(json.dumps({"42": [[1, 2, 3, 4, 0.9], [5, 6, 0, 8]]}))
    rows = [{"image": f"COCO_train2014_{n:012d}.jpg", "text": "x", "box": [1, 2, 3, 4]} for n in (42, 43)]
    source = opened(tmp_path, "grounding", *rows, detections=str(boxes))
    assert source.record(0, 0).proposals == ((1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 0.0, 8.0))
    with pytest.raises(UserError, match=r"dets\.json: has no boxes for the image of rows\.json, row 2"):
        source.record(1, 0)
    boxes.write_text("[]")
    with pytest.raises(UserError, match="expected"):
        opened(tmp_path, "grounding", *rows, detections=str(boxes))
