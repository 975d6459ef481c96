import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from albef.config import DataConfig, UserError
from albef.data.records import stable_id
from albef.data.sources import open_source

ROWS = [
    {"image": "a.jpg", "caption": "a fox, running", "image_id": 7},
    {"image": "sub/b.png", "caption": ["two cars", "ein größeres Auto"], "image_id": "x"},
    {"image": "/elsewhere/c.png", "caption": "a\nb", "image_id": 7},
]


def written(folder: Path, name: str, rows: list[dict]) -> Path:
    file = folder / name
    if name.endswith(".json"):
        file.write_text(json.dumps(rows, ensure_ascii=False, indent=1), "utf-8")
    elif name.endswith(".jsonl"):
        file.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n", "utf-8")
    return file


def opened(file: Path, **settings):
    return open_source(DataConfig(source=str(file), **settings), "train", 0)


@pytest.mark.parametrize("name", ["pairs.json", "pairs.jsonl"])
def test_rows_of_json_and_jsonl(tmp_path, name):
    source = opened(written(tmp_path, name, ROWS))
    records = [source.record(index, epoch=3) for index in range(len(source))]
    assert source.couple == 1
    assert len(records) == 3
    assert [record.image for record in records] == [
        tmp_path / "a.jpg",
        tmp_path / "sub/b.png",
        Path("/elsewhere/c.png"),
    ]
    assert records[0].captions == ("a fox, running",)
    assert records[1].captions == ("two cars", "ein größeres Auto")
    assert [record.image_id for record in records] == [stable_id("7"), stable_id("x"), stable_id("7")]
    assert records[0].caption_ids is None
    place = "row 3" if name == "pairs.json" else "line 5"
    assert records[2].origin == f"{name}, {place}"


@pytest.mark.parametrize(("name", "separator"), [("pairs.csv", ","), ("pairs.tsv", "\t")])
def test_rows_of_csv_and_tsv(tmp_path, name, separator):
    header = separator.join(["caption", "other", "image"])
    lines = [separator.join(['"a ""red"" car, parked"', "1", "a.jpg"]), separator.join(["ü", "2", "b.jpg"])]
    (tmp_path / name).write_text("\ufeff" + "\r\n".join([header, *lines]), "utf-8")
    source = opened(tmp_path / name)
    assert [source.record(index, 0).captions for index in range(2)] == [('a "red" car, parked',), ("ü",)]
    second = source.record(1, 0)
    assert second.image == tmp_path / "b.jpg"
    assert second.image_id == stable_id("b.jpg")
    assert second.origin == f"{name}, line 3"


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.text(min_size=1), st.lists(st.text(), max_size=3)), min_size=1, max_size=5),
    st.booleans(),
    st.sampled_from([None, 0, 1]),
)
def test_any_json_list_is_read_as_the_standard_reader_does(tmp_path_factory, pairs, ascii_only, indent):
    file = tmp_path_factory.getbasetemp() / "any.json"
    rows = [{"image": image, "caption": captions} for image, captions in pairs]
    file.write_text(json.dumps(rows, ensure_ascii=ascii_only, indent=indent), "utf-8")
    source = opened(file)
    assert [list(source.record(index, 0).captions) for index in range(len(source))] == [
        captions for _, captions in pairs
    ]


def test_image_root(tmp_path):
    (tmp_path / "pictures").mkdir()
    source = opened(written(tmp_path, "pairs.json", ROWS), image_root=str(tmp_path / "pictures"))
    assert source.record(0, 0).image == tmp_path / "pictures" / "a.jpg"
    with pytest.raises(UserError, match=r"nowhere: no such folder. Correct data.image_root"):
        opened(tmp_path / "pairs.json", image_root=str(tmp_path / "nowhere"))


def test_a_folder_of_pictures_with_texts(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("b.PNG", "deep/a.jpg", "lonely.jpg", ".hidden.jpg", "notes.md"):
        (tmp_path / name).touch()
    (tmp_path / "b.txt").write_text("a fox\n\n  \ntwo foxes\n", "utf-8")
    (tmp_path / "deep/a.txt").write_text("", "utf-8")
    source = opened(tmp_path)
    records = [source.record(index, 0) for index in range(len(source))]
    assert [record.origin for record in records] == ["b.PNG", "deep/a.jpg", "lonely.jpg"]
    assert [record.captions for record in records] == [("a fox", "two foxes"), (), ()]
    assert records[0].image == tmp_path / "b.PNG"
    assert records[0].image_id is None


def test_sources_travel_to_other_processes(tmp_path):
    source = opened(written(tmp_path, "pairs.json", ROWS))
    copy = pickle.loads(pickle.dumps(source))
    assert [copy.record(index, 0) for index in range(3)] == [source.record(index, 0) for index in range(3)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "", "is empty"),
        ("a.json", '{"image": "a.jpg"}', "not a list of objects.*jsonl"),
        ("a.json", "[]", "holds no rows"),
        ("a.json", '[{"image": "a", "caption": "b"}, 5]', "row 2: expected an object .* found a number"),
        ("a.json", '[{"image": "a", "caption": "b"}, [1]]', "row 2: .* found a list"),
        (
            "a.json",
            '[{"image": "a", "captions": "b"}]',
            'row 1: the key "caption" is missing; rename "captions"',
        ),
        ("a.json", '[{"img": "a", "caption": "b"}]', 'row 1: the key "image" is missing; rename "img"'),
        ("a.json", '[{"x": "a", "caption": "b"}]', '"image" is missing; found only x, caption'),
        ("a.json", "[{}]", '"image" is missing; found only nothing'),
        ("a.json", '[{"image": 3, "caption": "b"}]', 'row 1: "image" must be .* found a number'),
        ("a.json", '[{"image": "a", "caption": [1]}]', 'row 1: "caption" must be .* found a list'),
        ("a.json", '[{"image": "a", "caption": null}]', 'row 1: "caption" must be .* found null'),
        ("a.json", '[\n{"image": "a", "caption": "b"}\n', "line 3: broken JSON .*comma"),
        ("a.json", '[\n{"image": "a" "caption": "b"}]', "line 2: broken JSON"),
        ("a.json", '[{"image": "a", "caption": "b"},]', "line 1: broken JSON"),
        ("a.json", b"[\xff\xfe]", "not UTF-8"),
        ("a.json", '[{"image": "a", "caption": "\\ud800"}]', "not UTF-8"),
        ("a.jsonl", "", "holds no rows"),
        ("a.jsonl", '{"image": "a", "caption": "b"}\n{"image"', "line 2: broken JSON"),
        ("a.jsonl", '"text"', "line 1: expected an object .* found a text"),
        ("a.csv", "", "holds no rows"),
        ("a.csv", "image,caption\n", "holds no rows"),
        ("a.csv", "image,title\na,b\n", 'header: the key "caption" is missing'),
        ("a.csv", "image,caption\na,b\nc,one, two\n", "line 3: not as many fields .*double quotes"),
        ("a.csv", "image,caption\na\n", "line 2: not as many fields"),
        ("a.parquet", "x", "unknown kind .* .json, .jsonl, .csv, .tsv"),
    ],
)
def test_wrong_files_are_explained_in_a_sentence(tmp_path, name, content, message):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as caught:
        opened(file)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_missing_files_and_folders_without_pairs(tmp_path):
    with pytest.raises(UserError, match=r"none.json: no such file or folder"):
        opened(tmp_path / "none.json")
    with pytest.raises(UserError, match="none of its 0 images"):
        opened(tmp_path)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(UserError, match=r"none of its 1 images has a .txt"):
        opened(tmp_path)


def test_many_rows_stay_compact(tmp_path):
    rows = [{"image": f"{number}.jpg", "caption": "a fox"} for number in range(70_000)]
    source = opened(written(tmp_path, "pairs.json", rows))
    assert len(source) == 70_000
    assert source.record(69_999, 0).image.name == "69999.jpg"
    assert len(pickle.dumps(source)) < 70_000 * 80


def test_pictograms_come_in_couples_and_change_with_the_epoch():
    config = DataConfig(count=6, num_nouns=8)
    source = open_source(config, "train", seed=1, image_size=32)
    assert len(source) == 6
    assert source.couple == 2
    record, again, later = source.record(2, 0), source.record(2, 0), source.record(2, 1)
    assert record.image.shape == (32, 32, 3)
    assert np.array_equal(record.image, again.image)
    assert not np.array_equal(record.image, later.image)
    assert record.image_id == again.image_id != later.image_id
    assert len(record.captions) == len(record.caption_ids) == 1
    copy = pickle.loads(pickle.dumps(source)).record(2, 0)
    assert np.array_equal(copy.image, record.image)
    assert copy.captions == record.captions


def test_only_training_captions_are_noisy():
    noisy = DataConfig(count=40, num_nouns=8, caption_noise=1.0)
    clean = DataConfig(count=40, num_nouns=8, caption_noise=0.0)
    for split, same in (("train", False), ("test", True)):
        sources = [open_source(config, split, seed=0, image_size=32) for config in (noisy, clean)]
        captions = [[source.record(index, 0).captions for index in range(40)] for source in sources]
        assert (captions[0] == captions[1]) is same


def test_kinds_of_scene_are_weighed_in_training_alone():
    config = DataConfig(count=40, num_nouns=8, caption_noise=0.0, mix={"single": 1.0})
    for split, alone in (("train", True), ("test", False)):
        source = open_source(config, split, seed=0, image_size=32)
        captions = [source.record(index, 0).captions[0] for index in range(40)]
        assert any("two " in caption for caption in captions) is not alone


@pytest.mark.parametrize("task", ["vqa", "entailment", "nlvr", "grounding"])
def test_a_folder_is_refused_for_tasks_that_need_more_than_captions(tmp_path, task):
    with pytest.raises(UserError, match=f"only has captions, but task {task} needs an annotation file"):
        open_source(DataConfig(source=str(tmp_path)), "train", 0, task=task)


def test_questions_without_any_answer_are_for_evaluation_alone(tmp_path):
    (tmp_path / "a.jpg").touch()
    rows = [{"image": "a.jpg", "question": "is there a fox", "question_id": number} for number in range(3)]
    config = DataConfig(source=str(written(tmp_path, "questions.json", rows)))
    assert len(open_source(config, "test", 0, task="vqa")) == 3
    with pytest.raises(
        UserError, match=r'none of the 3 questions has an "answer": there is nothing to learn'
    ):
        open_source(config, "train", 0, task="vqa")
    written(tmp_path, "questions.json", [*rows, rows[0] | {"answer": "yes"}])
    assert len(open_source(config, "test", 0, task="vqa")) == 4
    source = open_source(config, "train", 0, task="vqa")
    assert len(source) == 1
    assert source.notes == [f'{config.source}: 3 of 4 questions have no "answer" and are left out.']
    assert [row.origin for row in source.left_out] == [f"questions.json, row {n}" for n in (1, 2, 3)]


def test_boxes_are_asked_of_the_pictures_of_evaluation_alone(tmp_path):
    (tmp_path / "boxes.json").write_text('{"2": [[0, 0, 5, 5]]}')
    rows = [{"image": "COCO_1.jpg", "text": "the left fox", "box": [0, 0, 4, 4]}]
    file = written(tmp_path, "phrases.json", rows)
    config = DataConfig(source=str(file), detections=str(tmp_path / "boxes.json"))
    assert open_source(config, "train", 0, task="grounding").record(0, 0).proposals == ()
    with pytest.raises(UserError, match="has no boxes for the image"):
        open_source(config, "test", 0, task="grounding").record(0, 0)


def test_texts_that_cannot_be_read_are_no_captions(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / name).touch()
    (tmp_path / "a.txt").write_text("a fox")
    (tmp_path / "b.txt").mkdir()
    source = opened(tmp_path)
    assert [source.record(index, 0).captions for index in range(2)] == [("a fox",), ()]
