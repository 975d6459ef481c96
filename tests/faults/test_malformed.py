"""Annotation files with mistakes in them: each ends in a sentence that names file, row and field."""

import csv
import io
import json
import random
import re
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faulty import tell

from albef.config import DataConfig, TaskName, UserError
from albef.data.sources import open_source

FILES = 1000
VALID: dict[TaskName, dict[str, Any]] = {
    "pretrain": {"image": "a.jpg", "caption": ["a fox", "two foxes"], "image_id": 7},
    "retrieval": {"image": "a.jpg", "caption": "a fox", "image_id": "seven"},
    "vqa": {
        "image": "a.jpg",
        "question": "what?",
        "answer": ["fox", "fox"],
        "question_id": 1,
        "dataset": "vg",
    },
    "entailment": {"image": "a", "sentence": "a fox", "label": "neutral"},
    "nlvr": {"images": ["a.jpg", "b.jpg"], "sentence": "two foxes", "label": "True", "identifier": "x-1"},
    "grounding": {"image": "a.jpg", "text": "a fox", "ref_id": 3, "box": [1, 2, 30.5, 40]},
}
STRANGE = [
    None,
    True,
    -1,
    10**400,
    1.5e308,
    float("nan"),
    float("inf"),
    "",
    "\ud800",
    "\0",
    "ü" * 5000,
    [],
    [[]],
    [None],
    {},
    {"image": {}},
    ["a", 1],
    [1, 2, 3, 4, 5],
    [1, 2, -3, 4],
]


def strange_value(row: dict[str, Any], random_: random.Random) -> None:
    row[random_.choice(list(row))] = random_.choice(STRANGE)


def missing_key(row: dict[str, Any], random_: random.Random) -> None:
    del row[random_.choice(list(row))]


def renamed_key(row: dict[str, Any], random_: random.Random) -> None:
    key = random_.choice(list(row))
    row[key + "s"] = row.pop(key)


def text_of(rows: list[Any], kind: str) -> str:
    if kind == ".json":
        return json.dumps(rows, ensure_ascii=random.Random(0).random() < 0.5)
    if kind == ".jsonl":
        return "\n".join(json.dumps(row) for row in rows)
    content = io.StringIO()
    writer = csv.writer(content, delimiter="," if kind == ".csv" else "\t")
    keys = list(VALID["pretrain"])
    writer.writerow(keys)
    for row in rows:
        writer.writerow([str(row.get(key, "")) for key in keys] if isinstance(row, dict) else [str(row)])
    return content.getvalue()


def mutated(random_: random.Random, task: TaskName, kind: str) -> bytes:
    """A valid file of a few rows with one to three mistakes in its rows or in its bytes."""
    rows: list[Any] = [dict(VALID[task]) for _ in range(random_.randrange(1, 6))]
    way = random_.randrange(4)
    if way == 0:
        changes: list[Callable[[dict[str, Any], random.Random], None]] = [
            strange_value,
            missing_key,
            renamed_key,
        ]
        random_.choice(changes)(random_.choice(rows), random_)
    if way == 1:
        rows[random_.randrange(len(rows))] = random_.choice(STRANGE)
    data = bytearray(text_of(rows, kind).encode("utf-8", "surrogatepass"))
    if way == 2:
        for _ in range(random_.randrange(1, 4)):
            data[random_.randrange(len(data))] = random_.randrange(256)
    if way == 3:
        start = random_.randrange(len(data))
        data[start : start + random_.randrange(1, 20)] = random_.choice(
            [
                b"",
                b"[" * 100_000,
                b"9" * 5000,
                b"\xff\xfe",
                b'"',
                b"}" * 3,
                b"\0",
                b'{"a":' * 50_000,
                b"x" * 200_000,
            ]
        )
    return bytes(data)


def read(path: Path, task: TaskName) -> str:
    """What reading the whole file says; empty when it is (still) a valid one."""
    try:
        source = open_source(DataConfig(source=str(path)), "train", 0, 16, task)
        for index in range(len(source)):
            source.record(index, 0)
    except UserError as error:
        return str(error)
    return ""


def test_malformed_annotation_files(tmp_path: Path) -> None:
    refused, slowest = 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(FILES):
        random_ = random.Random(number)
        task = random_.choice(list(VALID))
        kind = random_.choice(
            [".json", ".jsonl", ".csv", ".tsv"] if task == "pretrain" else [".json", ".jsonl"]
        )
        path = tmp_path / f"annotations{kind}"
        path.write_bytes(mutated(random_, task, kind))
        begun = time.process_time()
        said = read(path, task)
        slowest = max(slowest, time.process_time() - begun)
        if said:
            refused += 1
            assert path.name in said, said
            assert "\n" not in said
            assert re.search(
                r"row \d|line \d|header|holds no rows|not a list|not UTF-8|none of the|\.tsv|\.csv", said
            ), said
            assert len(said) < 1000
    megabytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert refused > FILES / 3
    assert megabytes < 500
    tell(
        f"annotation files: {FILES} mutated ones, {refused} refused with a sentence, the others valid; "
        f"{slowest:.2f} s for the slowest, {megabytes:.0f} MB more than before"
    )


@pytest.mark.parametrize("task", VALID)
def test_the_files_that_are_mutated_are_valid(tmp_path: Path, task: TaskName) -> None:
    with warnings.catch_warnings():
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps([VALID[task]]))
        assert read(path, task) == ""
