"""VQA v2, and easy-vqa in its package's layout."""

import json
from pathlib import Path

import pytest

from albef.data.prepare.vqa import OFTEN
from downloads import picture, prepare, records, write


def questions(pictures: str, count: int) -> dict[str, object]:
    rows = [{"image_id": n, "question": f"What is {n}?", "question_id": 1000 * n} for n in range(count)]
    return {"info": {}, "task_type": "Open-Ended", "data_type": "mscoco", "license": {}, "questions": rows}


def annotations(count: int) -> dict[str, object]:
    rows = [
        {
            "question_type": "what is",
            "multiple_choice_answer": "net" if n < OFTEN else "racket",
            "answers": [
                {
                    "answer": "net" if person < 8 else "racket",
                    "answer_confidence": "yes",
                    "answer_id": person + 1,
                }
                for person in range(10)
            ],
            "image_id": n,
            "answer_type": "other",
            "question_id": 1000 * n,
        }
        for n in reversed(range(count))  # in another order than the questions
    ]
    return {"info": {}, "license": {}, "data_subtype": "train2014", "annotations": rows}


@pytest.fixture
def vqa(tmp_path: Path) -> Path:
    source = tmp_path / "vqa"
    for split, count in (("train", OFTEN + 1), ("val", 2)):
        write(source / f"v2_OpenEnded_mscoco_{split}2014_questions.json", questions(f"{split}2014", count))
        write(source / f"v2_mscoco_{split}2014_annotations.json", annotations(count))
    for pictures, count in (("train2014", OFTEN), ("val2014", 2), ("test2015", 3)):
        for n in range(count):
            picture(source / "images" / pictures / f"COCO_{pictures}_{n:012d}.jpg")
    return source


def test_questions_with_ten_answers(vqa: Path) -> None:
    write(vqa / "v2_OpenEnded_mscoco_test2015_questions.json", questions("test2015", 3))
    write(vqa / "v2_OpenEnded_mscoco_test-dev2015_questions.json", questions("test2015", 1))
    out = prepare("vqa", vqa)
    train, val, test, dev = (
        records(out / f"vqa_{name}.json", "vqa", vqa) for name in ("train", "val", "test", "test-dev")
    )
    assert (len(train), len(val), len(test), len(dev)) == (OFTEN, 2, 3, 1)
    assert (train[3].captions, train[3].key) == (("What is 3?",), "3000")
    assert train[3].answers == ("net",) * 8 + ("racket",) * 2
    assert [(record.answers, record.key) for record in test] == [((), str(1000 * n)) for n in range(3)]
    assert (out / "missing.txt").read_text() == f"images/train2014/COCO_train2014_{OFTEN:012d}.jpg\n"
    # "racket" is the most frequent answer of one question only.
    assert json.loads((out / "answer_list.json").read_text()) == ["net"]


def test_test_questions_are_optional(vqa: Path) -> None:
    assert {path.name for path in prepare("vqa", vqa).iterdir()} == {
        "vqa_train.json", "vqa_val.json", "answer_list.json", "missing.txt",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("split", "count", "message"),
    [
        ("val", None, "v2_mscoco_val2014_annotations.json is neither here"),
        ("val", 1, '"question_id" is 1000, but the annotations have no such id'),
        ("train", 0, '"question_id" is 0, but the annotations have no such id'),
    ],
)
def test_annotations_that_do_not_fit(
    vqa: Path, capsys: pytest.CaptureFixture[str], split: str, count: int | None, message: str
) -> None:
    file = vqa / f"v2_mscoco_{split}2014_annotations.json"
    if count is None:
        file.unlink()
    else:
        write(file, annotations(count))
    with pytest.raises(SystemExit, match="2"):
        prepare("vqa", vqa)
    assert message in capsys.readouterr().err
    assert not list(vqa.parent.glob("*prepared*"))


def test_a_list_of_answers_would_be_empty(vqa: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for split in ("train", "val"):
        write(vqa / f"v2_OpenEnded_mscoco_{split}2014_questions.json", questions(f"{split}2014", 1))
        write(vqa / f"v2_mscoco_{split}2014_annotations.json", annotations(1))
    with pytest.raises(SystemExit, match="2"):
        prepare("vqa", vqa)
    assert f"no answer is the most frequent one of {OFTEN} questions" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["easy_vqa", "."])
def test_easy_vqa(tmp_path: Path, package: str, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "site-packages"
    data = source / package / "data"
    write(data / "answers.txt", "circle\nred\nyes\nno\n")
    for split in ("train", "test"):
        rows = [["what is the red shape?", "circle", 0], ["is there a red shape?", "yes", 1]]
        write(data / split / "questions.json", rows)
        for number in (0, 1):
            picture(data / split / "images" / f"{number}.png")
    (data / "test" / "images" / "1.png").unlink()
    out = prepare("easy-vqa", source)
    train, test = (records(out / f"easy_vqa_{split}.json", "vqa", source) for split in ("train", "test"))
    assert [(record.image.name, record.answers, record.key) for record in train] == [
        ("0.png", ("circle",), "0"),
        ("1.png", ("yes",), "1"),
    ]
    assert [record.captions for record in test] == [("what is the red shape?",)]
    assert json.loads((out / "answer_list.json").read_text()) == ["circle", "red", "yes", "no"]
    write(data / "test" / "questions.json", [["what?", "circle", "0"]])
    out.rename(tmp_path / "before")
    with pytest.raises(SystemExit, match="2"):
        prepare("easy-vqa", source)
    assert "questions.json, row 1: expected [question, answer, number" in capsys.readouterr().err
