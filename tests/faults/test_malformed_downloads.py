"""Public downloads with mistakes in them: preparing one ends in a sentence, or in rows that can be read."""

import json
import os
import pickle
import random
from pathlib import Path
from typing import Any

import pytest
from faulty import tell
from test_malformed import PIECES, STRANGE, TEXTS

from albef.config import UserError
from albef.data.prepare import NAMES
from albef.data.prepare.sets import prepare
from downloads import picture, write

MUTATED = int(os.environ.get("ALBEF_MUTATED", 300))  # files in all

LINES = "a dog\thttp://x.org/0\na fox\thttp://x.org/1\n"
LINK = {"url": "http://x.org/0", "caption": "a dog", "key": "000000000"}
SENTENCE = {"Flickr30K_ID": "7.jpg", "sentence2": "a fox", "gold_label": "neutral"}
STATEMENT = {"sentence": "a fox", "label": "True", "directory": 0}
SPLIT = {"split": "train", "sentences": [{"raw": "a fox"}, {"raw": "two foxes"}], "imgid": 1}
REFERENCE = {"split": "train", "image_id": 1, "ann_id": 2, "ref_id": 3, "sentences": [{"sent": "the fox"}]}
QUESTION = {"question_id": 1, "image_id": 1, "question": "what?"}
ANSWERS = {"question_id": 1, "multiple_choice_answer": "fox", "answers": [{"answer": "fox"}] * 10}
REFER = {
    "refs(unc).p": [REFERENCE] * 2,
    "instances.json": {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [{"id": 2, "bbox": [1, 2, 3, 4]}],
    },
    "dets.json": {"1": [[1, 2, 3, 4, 0.9]]},
}


def splits(name: str, row: dict[str, object]) -> dict[str, object]:
    return {name: {"images": [SPLIT | row | {"split": split} for split in ("train", "val", "test")]}}


DOWNLOADS: dict[str, tuple[list[str], dict[str, object]]] = {  # pictures, and files by name
    "coco": (
        ["train2014/1.jpg"],
        splits("dataset_coco.json", {"filepath": "train2014", "filename": "1.jpg", "cocoid": 1}),
    ),
    "flickr30k": (["flickr30k-images/7.jpg"], splits("dataset_flickr30k.json", {"filename": "7.jpg"})),
    "coco-captions": (
        ["train2017/1.jpg"],
        {
            "captions_train2017.json": {
                "images": [{"id": 1, "file_name": "1.jpg"}],
                "annotations": [{"image_id": 1, "caption": "a fox"}],
            }
        },
    ),
    "visual-genome": (
        ["VG_100K/1.jpg"],
        {
            "region_descriptions.json": [{"id": 1, "regions": [{"phrase": "a fox"}]}],
            "question_answers.json": [{"id": 1, "qas": [{"question": "what?", "answer": "a fox.", "qa_id": 5}]}],
        },
    ),
    "sbu": (
        ["sbu/00000/000000000.jpg"],
        {
            "sbu-captions-all.json": {"captions": ["a dog"], "image_urls": [LINK["url"]]},
            "sbu/00000/000000000.json": LINK,
        },
    ),
    "cc3m": (["cc3m/00000/000000000.jpg"], {"cc3m.tsv": LINES, "cc3m/00000/000000000.json": LINK}),
    "cc12m": (["cc12m/00000/000000000.jpg"], {"cc12m/00000/000000000.txt": "a dog"}),
    "vqa": (
        [f"{split}2014/COCO_{split}2014_000000000001.jpg" for split in ("train", "val")],
        {
            name: {key: [row] * 9}
            for split in ("train", "val")
            for name, key, row in (
                (f"v2_OpenEnded_mscoco_{split}2014_questions.json", "questions", QUESTION),
                (f"v2_mscoco_{split}2014_annotations.json", "annotations", ANSWERS),
            )
        },
    ),
    "snli-ve": (
        ["flickr30k-images/7.jpg"],
        {f"snli_ve_{split}.jsonl": [SENTENCE] * 2 for split in ("train", "dev", "test")},
    ),
    "nlvr2": (
        [
            f"{folder}/{folder.partition('/')[0]}-1-0-img{side}.png"
            for folder in ("train/0", "dev", "test1")
            for side in (0, 1)
        ],
        {
            f"{split}.json": json.dumps(STATEMENT | {"identifier": f"{split}-1-0-0"}) + "\n"
            for split in ("train", "dev", "test1")
        },
    ),
    "refcoco": (["train2014/1.jpg"], {f"refcoco/{name}": value for name, value in REFER.items()}),
    "refcoco+": (["train2014/1.jpg"], {f"refcoco+/{name}": value for name, value in REFER.items()}),
    "refcocog": (
        ["train2014/1.jpg"],
        {f"refcocog/{name.replace('unc', 'umd')}": value for name, value in REFER.items()},
    ),
    "easy-vqa": (
        [f"data/{split}/images/0.png" for split in ("train", "test")],
        {"data/answers.txt": "fox\ncar\n"}
        | {f"data/{split}/questions.json": [["what?", "fox", 0]] for split in ("train", "test")},
    ),
}  # fmt: skip


def download(folder: Path, name: str) -> list[Path]:
    """Writes one; its annotation files."""
    pictures, files = DOWNLOADS[name]
    for image in pictures:
        picture(folder / image)
    return [write(folder / file, value) for file, value in files.items()]


def changed(value: Any, random_: random.Random) -> Any:
    """The value with something strange in place of one of its parts, however deep."""
    if isinstance(value, dict) and value and random_.random() < 0.9:
        key = random_.choice(list(value))
        if random_.random() < 0.1:
            return {other: one for other, one in value.items() if other != key}
        return value | {key: changed(value[key], random_)}
    if isinstance(value, list) and value and random_.random() < 0.9:
        number = random_.randrange(len(value))
        return [*value[:number], changed(value[number], random_), *value[number + 1 :]]
    return random_.choice([*STRANGE, *TEXTS])


def mutate(file: Path, random_: random.Random) -> None:
    data = bytearray(file.read_bytes())
    way = random_.randrange(3)
    if way == 0 and file.suffix == ".p":
        data = bytearray(pickle.dumps(changed(pickle.loads(data), random_), protocol=2))
    elif way == 0 and file.suffix == ".json" and b"\n" not in data:
        data = bytearray(json.dumps(changed(json.loads(data), random_)).encode())
    elif way == 1:
        start = random_.randrange(len(data))
        data[start : start + random_.randrange(1, 20)] = random_.choice(PIECES)
    else:
        for _ in range(random_.randrange(1, 4)):
            data[random_.randrange(len(data))] = random_.randrange(256)
    file.write_bytes(data)


@pytest.mark.parametrize("name", NAMES)
def test_a_malformed_download(name: str, tmp_path: Path) -> None:
    download(tmp_path / "whole", name)
    assert prepare(name, tmp_path / "whole", tmp_path / "out").files
    said, count = [], MUTATED // len(NAMES)
    for number in range(count):
        random_ = random.Random(f"{name} {number}")
        source = tmp_path / str(number)
        mutate(random_.choice(download(source, name)), random_)
        try:
            prepare(name, source, source / "out")
        except UserError as error:
            said.append(str(error))
            assert not (source / "out").exists()
    tell(f"{name}: {count} mutated downloads, {len(said)} refused with a sentence, the others valid")
