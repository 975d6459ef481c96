"""RefCOCO, RefCOCO+ and RefCOCOg; a pickle that would run something is refused before it can."""

import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from albef.config import DataConfig, UserError
from albef.data.prepare.plain_pickle import read_plain_pickle
from albef.data.sources import open_source
from downloads import picture, prepare, records, write


def reference(number: int, split: str) -> dict[str, object]:
    phrases = [f"thing {number}", f"the same {number}"]
    return {
        "sent_ids": [2 * number, 2 * number + 1],
        "file_name": f"COCO_train2014_{number:012d}_{number}.jpg",
        "ann_id": 100 + number,
        "ref_id": number,
        "image_id": number,
        "split": split,
        "sentences": [{"tokens": p.split(), "raw": p, "sent_id": 1, "sent": p} for p in phrases],
        "category_id": 1,
    }


@pytest.fixture
def refer(tmp_path: Path) -> Path:
    source = tmp_path / "refer"
    write_set(source, "refcoco", "refs(unc).p", ["train", "train", "val", "testA", "testB"])
    return source


def write_set(source: Path, name: str, refs_name: str, splits: list[str]) -> None:
    numbers = range(1, len(splits) + 1)
    refs = [reference(number, split) for number, split in zip(numbers, splits, strict=True)]
    write(source / name / refs_name, refs)
    images = [
        {"id": n, "file_name": f"COCO_train2014_{n:012d}.jpg", "height": 2, "width": 2} for n in numbers
    ]
    boxes = [
        {
            "segmentation": [[1, 2]],
            "area": 3.5,
            "bbox": [0.5, 1.0, 1.5, float(n)],
            "id": 100 + n,
            "image_id": n,
        }
        for n in numbers
    ]
    write(
        source / name / "instances.json",
        {"info": {}, "images": images, "annotations": boxes, "categories": []},
    )
    for n in numbers:
        if n != 2:
            picture(source / "images" / "train2014" / f"COCO_train2014_{n:012d}.jpg")


def test_splits_phrases_and_boxes(refer: Path) -> None:
    out = prepare("refcoco", refer)
    train, val, people, others = (
        records(out / f"refcoco_{split}.json", "grounding", refer)
        for split in ("train", "val", "testA", "testB")
    )
    assert [(record.captions[0], record.key, record.box) for record in train] == [
        ("thing 1", "1", (0.5, 1.0, 1.5, 1.0)),
        ("the same 1", "1", (0.5, 1.0, 1.5, 1.0)),
    ]
    assert train[0].image.name == "COCO_train2014_000000000001.jpg"  # not that of the crop
    assert [record.key for record in val + people + others] == ["3", "3", "4", "4", "5", "5"]
    assert (out / "missing.txt").read_text() == "images/train2014/COCO_train2014_000000000002.jpg\n"
    assert not (out / "dets.json").exists()


@pytest.mark.parametrize(
    ("name", "refs_name", "splits"),
    [
        ("refcoco+", "refs(unc).p", ["train", "val", "testA", "testB"]),
        ("refcocog", "refs(umd).p", ["train", "val", "test"]),
        ("refcocog", "refs(google).p", ["train", "val"]),
    ],
)
def test_each_set_has_its_own_splits(tmp_path: Path, name: str, refs_name: str, splits: list[str]) -> None:
    source = tmp_path / "refer"
    write_set(source, name, refs_name, [splits[0], *splits])
    out = prepare(name, source)
    assert {path.name for path in out.glob("*.json")} == {f"{name}_{split}.json" for split in splits}


def test_detections_go_along(refer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(refer / "refcoco" / "dets.json", {"3": [[1, 2, 3, 4, 0.9]]})
    out = prepare("refcoco", refer)
    assert f"--data.detections={out}/dets.json" in capsys.readouterr().out
    data = DataConfig(
        source=str(out / "refcoco_val.json"), image_root=str(refer), detections=str(out / "dets.json")
    )
    assert open_source(data, "val", 0, 16, "grounding").record(0, 0).proposals == ((1.0, 2.0, 3.0, 4.0),)
    out.rename(refer.parent / "before")
    write(refer / "refcoco" / "dets.json", {"3": [[1, 2, 3]]})
    with pytest.raises(SystemExit, match="2"):
        prepare("refcoco", refer)
    assert 'dets.json, key "3": expected an image\'s number and boxes' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "dev"}, '"split" is "dev"; it must be one of train, val'),
        ({"ann_id": 1}, '"ann_id" is 1, which instances.json does not have'),
        ({"image_id": 99}, '"image_id" is 99, which instances.json does not have'),
        ({"sentences": [{"raw": "x"}]}, 'the key "sent" is missing'),
    ],
)
def test_a_reference_that_is_none_is_named(
    refer: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], message: str
) -> None:
    file = write(refer / "refcoco" / "refs(unc).p", [reference(1, "train") | change])
    with pytest.raises(SystemExit, match="2"):
        prepare("refcoco", refer)
    error = capsys.readouterr().err
    assert f"{file}, reference 1" in error
    assert message in error


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return open, (str(self.file), "w")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_would_run_something_is_refused(
    refer: Path, capsys: pytest.CaptureFixture[str], protocol: int
) -> None:
    canary, file = refer / "canary", refer / "refcoco" / "refs(unc).p"
    file.write_bytes(pickle.dumps([reference(1, "train"), Touch(canary)], protocol))
    with pytest.raises(SystemExit, match="2"):
        prepare("refcoco", refer)
    assert "may only hold lists, dictionaries, texts and numbers" in capsys.readouterr().err
    assert not canary.exists()
    pickle.load(io.BytesIO(file.read_bytes())).pop().close()  # Python's own reader falls for it
    assert canary.exists()


def test_pickles_of_python_2_and_broken_ones(tmp_path: Path) -> None:
    file = tmp_path / "refs.p"
    # Protocol 0, as Python 2 wrote it: a list of a dictionary with a byte text, a Unicode text and numbers.
    file.write_bytes(b"(lp1\n(dp2\nS'sent'\np3\nS'caf\\xe9'\np4\nsS'id'\np5\nL7L\nsS'u'\np6\nVx\np7\nsa.")
    assert read_plain_pickle(file) == [{"sent": "café", "id": 7, "u": "x"}]
    file.write_bytes(pickle.dumps([np.int64(3)], protocol=2))
    with pytest.raises(UserError, match=r"needs numpy\."):
        read_plain_pickle(file)
    whole = pickle.dumps([{"a": [1, "x"]}], protocol=2)
    for end in range(len(whole)):
        file.write_bytes(whole[:end])
        with pytest.raises(UserError, match="not a readable pickle"):
            read_plain_pickle(file)
    file.write_bytes(json.dumps([1]).encode())
    with pytest.raises(UserError, match="not a readable pickle"):
        read_plain_pickle(file)
