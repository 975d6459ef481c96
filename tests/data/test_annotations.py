"""What annotation files say of images: which rows are of one, where they lie, and what is missing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from albef.config import DataConfig, ModelConfig, TaskName, UserError
from albef.data.annotations import AnnotationSource
from albef.data.collate import collate
from albef.data.loader import BadSample, ExampleSet, batches, list_left_out
from albef.data.sources import open_source
from albef.data.text import Tokenizer
from albef.data.words import BertWords
from albef.engine import Engine
from albef.evaluation.evaluate import evaluate_pairs


def opened(folder: Path, task: TaskName, rows: list[dict[str, Any]], split: str = "test", **settings: str):
    (folder / "rows.json").write_text(json.dumps(rows))
    return open_source(DataConfig(source=str(folder / "rows.json"), **settings), split, 0, 16, task)


def pictures(folder: Path, count: int) -> list[str]:
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(folder / name)
    return names


ROWS: dict[TaskName, dict[str, Any]] = {
    "pretrain": {"caption": "a fox"},
    "retrieval": {"caption": ["a fox", "two foxes"]},
    "text_assignment": {"caption": "a fox"},
    "vqa": {"question": "what?", "answer": "a fox"},
    "entailment": {"sentence": "a fox", "label": "neutral"},
    "grounding": {"text": "a fox", "box": [1, 2, 3, 4]},
}


@pytest.mark.parametrize("task", ROWS)
def test_rows_with_one_path_are_of_one_image(tmp_path: Path, task: TaskName) -> None:
    same = ["sub/a.jpg", "./sub/a.jpg", "sub//a.jpg", "sub/../sub/a.jpg", str(tmp_path / "sub" / "a.jpg")]
    others = ["a.jpg", "sub/b.jpg", "../sub/a.jpg", "/sub/a.jpg", "sub/A.jpg"]
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.jpg").touch()
    source = opened(tmp_path, task, [ROWS[task] | {"image": image} for image in same + others])
    ids = [source.record(index, 0).image_id for index in range(len(source))]
    assert len(set(ids[: len(same)])) == 1
    assert len(set(ids)) == 1 + len(others)
    for root in (str(tmp_path), f"{tmp_path}/sub/.."):
        again = opened(tmp_path, task, [ROWS[task] | {"image": "sub/a.jpg"}], image_root=root)
        assert again.record(0, 0).image_id == ids[0]


def test_an_image_is_the_same_wherever_the_data_lie(tmp_path: Path) -> None:
    found = []
    for folder in (tmp_path / "here", tmp_path / "there"):
        folder.mkdir()
        found.append(
            opened(folder, "pretrain", [{"image": "a.jpg", "caption": "a fox"}]).record(0, 0).image_id
        )
    assert found[0] == found[1]


def test_what_the_rows_say_of_the_image_counts_more_than_its_path(tmp_path: Path) -> None:
    rows = [
        {"image": "a.jpg", "caption": "a fox", "image_id": 7},
        {"image": "b.jpg", "caption": "a fox", "image_id": "7"},
        {"image": "a.jpg", "caption": "a fox", "image_id": 8},
        {"image": "c.jpg", "caption": "a fox", "image_id": 7.0},  # a column with gaps
        {"image": "a.jpg", "caption": "a fox", "image_id": float("nan")},  # a gap
        {"image": "a.jpg", "caption": "a fox", "image_id": None},
        {"image": "a.jpg", "caption": "a fox", "image_id": ""},
        {"image": "b.jpg", "caption": "a fox", "image_id": float("nan")},
    ]
    ids = [opened(tmp_path, "pretrain", rows).record(index, 0).image_id for index in range(len(rows))]
    first = [ids.index(each) for each in ids]
    assert first == [0, 0, 2, 0, 4, 4, 4, 7]


@given(st.lists(st.sampled_from(["a", "b", ".", "..", ""]), min_size=1, max_size=6))
def test_a_path_is_normalised_as_the_file_system_would(tmp_path_factory, parts: list[str]) -> None:
    """Folders a, a/a, …, all without links: equal numbers are equal files."""
    folder = tmp_path_factory.getbasetemp() / "nested"
    for deep in ("a/a", "a/b", "b/a", "b/b"):
        (folder / deep).mkdir(parents=True, exist_ok=True)
    (folder / "rows.json").write_text(
        json.dumps(
            [{"image": "/".join(["a", *parts]), "caption": "x"}, {"image": "a/b/c.jpg", "caption": "x"}]
        )
    )
    source = AnnotationSource(folder / "rows.json", str(folder))
    path, other = (folder / "/".join(["a", *parts])).resolve(), (folder / "a/b/c.jpg").resolve()
    assert (source.record(0, 0).image_id == source.record(1, 0).image_id) is (path == other)


def test_recall_of_images_in_several_rows_is_that_with_an_image_id(tmp_path: Path, engine: Engine) -> None:
    names = pictures(tmp_path, 4)
    captions = [
        f"a {colour} {thing}"
        for colour in ("red", "small", "large")
        for thing in ("fox", "car", "tree", "house")
    ]
    rows = [{"image": names[n % 4], "caption": caption} for n, caption in enumerate(captions)]
    own = dict(evaluate_pairs(engine, opened(tmp_path, "retrieval", rows), top_k=2))
    told = [row | {"image_id": row["image"]} for row in rows]
    assert own == dict(evaluate_pairs(engine, opened(tmp_path, "retrieval", told), top_k=2))
    assert (own["data/pictures"], own["data/captions"]) == (4, 12)


def test_training_examples_of_one_image_are_known_as_such(tmp_path: Path) -> None:
    names = pictures(tmp_path, 2)
    rows = [
        {"image": image, "caption": f"fox {n}"}
        for n, image in enumerate([names[0], names[1], "./" + names[0]])
    ]
    model = ModelConfig(image_size=16, patch_size=8)
    source = opened(tmp_path, "pretrain", rows, "train")
    examples = ExampleSet(source, BertWords(Tokenizer.bert(), model), DataConfig(), model, seed=0)
    batch = collate([examples.example(index, 0) for index in range(3)], 0)
    assert batch.image_id[0] == batch.image_id[2] != batch.image_id[1]


def test_absolute_paths_of_another_machine_are_explained(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pictures(tmp_path / "images", 2)
    rows = [{"image": f"/export/share/coco/images/{n}.png", "caption": "a fox"} for n in range(2)]
    message = (
        r'row 1: "/export/share/coco/images/0\.png" is an absolute path, which data\.image_root .* is not put before.*'
        r"images/0\.png is there below .*: set data\.strip_prefix \(--strip-prefix\) to /export/share/coco/, or"
    )
    for settings in ({}, {"image_root": str(tmp_path)}):
        with pytest.raises(UserError, match=message):
            opened(tmp_path, "pretrain", rows, **settings)
    for prefix in ("/export/share/coco/", "/export/share/coco"):
        source = opened(tmp_path, "pretrain", rows, strip_prefix=prefix)
        assert [source.record(n, 0).image for n in range(2)] == [
            tmp_path / "images" / f"{n}.png" for n in range(2)
        ]
    pairs = [{"images": ["/x/0.png", "/x/1.png"], "sentence": "x", "label": "True"}]
    source = opened(tmp_path, "nlvr", pairs, strip_prefix="/x/", image_root=str(tmp_path / "images"))
    assert source.record(0, 0).second_image == tmp_path / "images" / "1.png"


def test_absolute_paths_that_are_right_or_nowhere_are_left_alone(tmp_path: Path) -> None:
    (name,) = pictures(tmp_path, 1)
    opened(tmp_path, "pretrain", [{"image": str(tmp_path / name), "caption": "a fox"}])
    opened(tmp_path, "pretrain", [{"image": "/nowhere/at/all.png", "caption": "a fox"}])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            "coco/images/{}.png",
            r"is below .* by data\.image_root .*; but images/0\.png is there .* to coco/, or take",
        ),
        ("https://x.org/{}.png", "is a link, but images must be files. Download them"),
        ("images/{}.png ", "has spaces at an end"),
        ("images/{}.png\n", "has spaces at an end"),
    ],
)
def test_why_no_image_is_where_the_rows_say(tmp_path: Path, image: str, message: str) -> None:
    (tmp_path / "images").mkdir()
    pictures(tmp_path / "images", 3)
    rows = [{"image": image.format(number), "caption": "a fox"} for number in range(3)]
    with pytest.raises(UserError, match=message):
        opened(tmp_path, "pretrain", rows)
    rows[1]["image"] = "images/1.png"  # it is not all of them
    assert len(opened(tmp_path, "pretrain", rows)) == 3


def test_where_image_paths_begin_is_said_if_none_is_there(tmp_path: Path) -> None:
    rows = [{"image": f"{number}.png", "caption": "a fox"} for number in range(3)]
    note = (
        f"{tmp_path / 'rows.json'}: {tmp_path / '0.png'} is not there, and none of the others that were looked for. "
        f"Image paths begin at {tmp_path}; data.image_root (--image-root) is another folder for them."
    )
    assert list(opened(tmp_path, "pretrain", rows).notes) == [note]
    pictures(tmp_path, 1)
    assert list(opened(tmp_path, "pretrain", rows).notes) == []


def test_empty_texts_are_counted_and_said(tmp_path: Path) -> None:
    (image,) = pictures(tmp_path, 1)
    rows = [{"image": image, "caption": caption} for caption in ("a fox", "", [" ", "\n"], [], ["", "a fox"])]
    assert opened(tmp_path, "pretrain", rows).notes == [
        f'{tmp_path / "rows.json"}: 3 of 5 rows have an empty "caption" and nothing else.'
    ]
    row = {"image": "a.jpg", "sentence": " ", "label": "neutral"}
    assert (
        opened(tmp_path, "entailment", [row])
        .notes[0]
        .endswith('1 of 1 rows have an empty "sentence" and nothing else.')
    )


def test_paths_of_windows_are_explained(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    pictures(tmp_path / "images", 1)
    for image in ("images\\0.png", "C:\\photos\\images\\0.png"):
        with pytest.raises(UserError, match=r"is written as on Windows.*write it as \"images/0\.png\""):
            opened(tmp_path, "pretrain", [{"image": image, "caption": "a fox"}])


def test_questions_that_teach_nothing_are_left_out_counted_and_listed(tmp_path: Path) -> None:
    names = pictures(tmp_path, 4)
    answer = ("answer", "answr", "answer", "answr")
    rows = [{"image": n, "question": "what?", key: "a fox"} for n, key in zip(names, answer, strict=True)]
    source = opened(tmp_path, "vqa", rows, "train")
    assert [source.record(index, 0).image.name for index in range(len(source))] == [names[0], names[2]]
    assert source.notes == [
        f'{tmp_path / "rows.json"}: 2 of 4 questions have no "answer" (found "answr") and are left out.'
    ]
    listed = tmp_path / "bad_samples.jsonl"
    for _ in range(2):  # a run that begins again
        list_left_out(source, listed, print)
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert lines == [{"origin": f"rows.json, row {n}", "reason": 'there is no "answer"'} for n in (2, 4)]
    # They count for no tolerance, and other bad samples are listed behind them.
    examples = ExampleSet(
        source,
        BertWords(Tokenizer.bert(), ModelConfig()),
        DataConfig(max_bad_fraction=0.5),
        ModelConfig(image_size=16, patch_size=8),
        0,
    )
    examples.bad[0] = BadSample(0, "rows.json, row 1", "broken")
    next(batches(examples, 2, bad_samples=listed))
    assert [json.loads(line).get("index") for line in listed.read_text().splitlines()] == [None, None, 0]


@pytest.mark.parametrize("answer", [None, "", " ", [], ["", ""]])
def test_an_empty_answer_is_none(tmp_path: Path, answer: object) -> None:
    rows = [{"image": "a.jpg", "question": "what?", "answer": answer}]
    with pytest.raises(UserError, match=r'none of the 1 questions has an "answer"'):
        opened(tmp_path, "vqa", rows, "train")


@pytest.mark.parametrize(
    "box",
    [
        [1, 2, 3, float("inf")],
        [1, 2, float("nan"), 4],
        [10**400, 2, 3, 4],
        [-(10**400), 2, 3, 4],
        [1, 2, 3, 1e300],
        {},
        0,
    ],
)
def test_boxes_that_no_image_has(tmp_path: Path, box: object) -> None:
    rows = [{"image": "a.jpg", "text": "x", "box": box}]
    with pytest.raises(UserError, match=r'row 1: "box" must be \[left'):
        opened(tmp_path, "grounding", rows)


def test_proposals_that_no_image_has(tmp_path: Path) -> None:
    rows = [{"image": f"{'9' * 5000}.jpg", "text": "x", "box": [1, 2, 3, 4]}]
    for content, message in (
        ('{"9": [[1, 2, 3, 1e400]]}', "has no boxes"),
        (f'{{"{"9" * 5000}": [[1, 2, 3, 1e400]]}}', "are not .x, y, width"),
        (f'{{"{"9" * 5000}": [[1, 2, 3, {"9" * 400}]]}}', "are not .x, y, width"),
        ("[" * 100_000, "cannot be read"),
        ("\udcff", "cannot be read"),
    ):
        (tmp_path / "boxes.json").write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(UserError, match=message):
            opened(tmp_path, "grounding", rows, detections=str(tmp_path / "boxes.json")).record(0, 0)


def test_the_row_that_is_no_text_is_named(tmp_path: Path) -> None:
    rows = [{"image": "a.jpg", "caption": "a fox"}] * 3 + [{"image": "a.jpg", "caption": "\ud800"}]
    with pytest.raises(UserError, match=r"rows\.json, row 4: not UTF-8 text \(surrogates not allowed\)"):
        opened(tmp_path, "pretrain", rows)


@pytest.mark.parametrize("source", ["~nobody-of-that-name/a.json", "x" * 5000 + ".json", "a\0b.json"])
def test_names_that_no_file_can_have(source: str) -> None:
    with pytest.raises(UserError, match="no such file or folder"):
        open_source(DataConfig(source=source), "train", 0)
