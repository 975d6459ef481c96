"""COCO and Flickr30k in Karpathy's splits."""

import json
from pathlib import Path

import pytest

from downloads import picture, prepare, records, write

CAPTIONS = ["A man with a red helmet.", "A man on a dirt road."]


def karpathy_row(name: str, split: str, **more: object) -> dict[str, object]:
    sentences = [
        {"tokens": text.lower().rstrip(".").split(), "raw": text, "imgid": 0, "sentid": number}
        for number, text in enumerate(CAPTIONS)
    ]
    row = {"sentids": [0, 1], "imgid": 0, "sentences": sentences, "split": split, "filename": name}
    return row | more


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """Four pictures, one of each split; that of the validation split has no file, and one more is empty."""
    rows = []
    for number, split in enumerate(["train", "restval", "test", "val", "val"], start=1):
        year = "train2014" if split == "train" else "val2014"
        name = f"COCO_{year}_{number:012d}.jpg"
        rows.append(karpathy_row(name, split, filepath=year, cocoid=number))
        if number < 4:
            picture(tmp_path / "coco" / "images" / year / name)
    (tmp_path / "coco" / "images" / "val2014" / "COCO_val2014_000000000004.jpg").touch()
    picture(tmp_path / "coco" / "images" / "val2014" / "COCO_val2014_000000000005.jpg")
    write(tmp_path / "coco" / "dataset_coco.json", {"images": rows, "dataset": "coco"})
    return tmp_path / "coco"


def test_coco_in_its_splits(coco: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = prepare("coco", coco)
    train, val, test = (
        records(out / f"coco_{split}.json", "retrieval", coco) for split in ("train", "val", "test")
    )
    # A row per caption; what was left over of the validation set is training data.
    assert [record.captions for record in train] == [(CAPTIONS[0],), (CAPTIONS[1],)] * 2
    assert [record.image.name for record in train[::2]] == [
        "COCO_train2014_000000000001.jpg",
        "COCO_val2014_000000000002.jpg",
    ]
    assert train[0].image_id == train[1].image_id != train[2].image_id
    assert [record.captions for record in val + test] == [tuple(CAPTIONS)] * 2
    assert (out / "missing.txt").read_text() == "images/val2014/COCO_val2014_000000000004.jpg\n"
    printed = capsys.readouterr().out
    assert "1 images are missing or empty" in printed
    assert f"--data.source={out}/coco_train.json" in printed


def test_flickr30k_has_no_folders_in_its_annotations(tmp_path: Path) -> None:
    source = tmp_path / "flickr"
    rows = [karpathy_row(f"10{number}.jpg", split) for number, split in enumerate(["train", "val", "test"])]
    for row in rows:
        picture(source / "flickr30k-images" / str(row["filename"]))
    write(source / "dataset_flickr30k.json", {"images": rows, "dataset": "flickr30k"})
    out = prepare("flickr30k", source)
    assert len(records(out / "flickr30k_train.json", "retrieval", source)) == 2
    assert len(records(out / "flickr30k_test.json", "retrieval", source)) == 1
    assert json.loads((out / "flickr30k_val.json").read_text()) == [
        {"image": "flickr30k-images/101.jpg", "caption": CAPTIONS, "image_id": "101"}
    ]
    assert not (out / "missing.txt").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "dev"}, '"split" is "dev"; it must be one of train, restval, val, test'),
        ({"sentences": "A man."}, '"sentences" must be a list, found a text'),
        ({"sentences": [{"tokens": []}]}, 'the key "raw" is missing'),
        ({"cocoid": "1"}, '"cocoid" must be a whole number, found a text'),
    ],
)
def test_a_row_that_is_none_is_named(
    coco: Path, capsys: pytest.CaptureFixture[str], change: dict[str, object], message: str
) -> None:
    file = coco / "dataset_coco.json"
    content = json.loads(file.read_text())
    content["images"][1] |= change
    write(file, content)
    with pytest.raises(SystemExit, match="2"):
        prepare("coco", coco)
    error = capsys.readouterr().err
    assert f'{file}, row 2 of "images": ' in error
    assert message in error
    assert not list(coco.parent.glob("*prepared*"))  # nothing half-written


@pytest.mark.parametrize("folder", ["/etc", "x" * 5000, "nowhere", "a\0b"])
def test_a_folder_that_is_none_of_the_download(
    coco: Path, capsys: pytest.CaptureFixture[str], folder: str
) -> None:
    file = coco / "dataset_coco.json"
    content = json.loads(file.read_text())
    content["images"][1]["filepath"] = folder
    write(file, content)
    with pytest.raises(SystemExit, match="2"):
        prepare("coco", coco)
    assert "is neither here nor up to 3 folders below" in capsys.readouterr().err
