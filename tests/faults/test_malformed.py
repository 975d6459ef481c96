"""Annotation files with mistakes in them: each ends in a sentence that names file, row and field."""

import bz2
import contextlib
import csv
import gzip
import io
import json
import os
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
from albef.data.answers import soft_accuracy
from albef.data.images import BadImage, open_image
from albef.data.sources import open_source
from albef.evaluation.judged import another
from albef.evaluation.vqa import check_answers, frequent_answers

FILES = int(os.environ.get("ALBEF_MUTATED", 300))
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


TEXTS = [
    "", " ", "\0", "\ud800", "\udcff", "..", "../../..", "/", "/etc", "C:\\a\\b.jpg", "a" * 5000, "9" * 5000,
    "~nobody/a.jpg",
    "x\ny", "x\ry", "x\ty", '"', '""', '"a', 'a"', "\ufeff", "\u2028", "NaN", "null", "[1, 2, 3, 4]", "{", "a.jpg,b",
    "٣", "é" * 100,
]  # fmt: skip
PIECES = [
    b"", b"[" * 100_000, b"9" * 5000, b"1e400", b"\xff\xfe", b'"', b"'", b"}" * 3, b"\0", b'{"a":' * 50_000,
    b"x" * 200_000,
    b"\r", b"\n", b"\r\n\r\n", b",", b"\t", b";", b"NaN", b"-Infinity", b"\xef\xbb\xbf", b"\xc2\x85", b"\\ud800", b"\\",
    b"//x", b"\x1a",
]  # fmt: skip
SAVED: list[Callable[[str], bytes]] = [
    lambda text: text.encode("utf-16", "surrogatepass"),
    lambda text: text.encode("utf-16-le", "surrogatepass"),
    lambda text: text.encode("utf-32", "surrogatepass"),
    lambda text: text.replace("fox", "café").encode("latin-1", "replace"),
    lambda text: b"\xef\xbb\xbf" + text.encode("utf-8", "surrogatepass"),
    lambda text: gzip.compress(text.encode("utf-8", "surrogatepass")),
    lambda text: bz2.compress(text.encode("utf-8", "surrogatepass")),
    lambda text: text.replace("\r\n", "\n").replace("\n", "\r").encode("utf-8", "surrogatepass"),
    lambda text: text.replace("\n", "\r\n").encode("utf-8", "surrogatepass"),
    lambda text: text.replace(",", ";").encode("utf-8", "surrogatepass"),
    lambda text: text.replace("\t", " ").encode("utf-8", "surrogatepass"),
    lambda text: b"sep=;\n" + text.encode("utf-8", "surrogatepass"),
    lambda text: text.replace('"', "'").encode("utf-8", "surrogatepass"),
    lambda text: text.replace("fox", "x" * 1_000_000).encode("utf-8", "surrogatepass"),
    lambda text: b"",
]


def strange_value(row: dict[str, Any], random_: random.Random) -> None:
    row[random_.choice(list(row))] = random_.choice(STRANGE)


def missing_key(row: dict[str, Any], random_: random.Random) -> None:
    del row[random_.choice(list(row))]


def renamed_key(row: dict[str, Any], random_: random.Random) -> None:
    key = random_.choice(list(row))
    row[key + "s"] = row.pop(key)


def extra_key(row: dict[str, Any], random_: random.Random) -> None:
    row[random_.choice(["x", "box", "image_id", "answer", "label", "\0", "ü" * 300])] = random_.choice(
        STRANGE
    )


def strange_text(row: dict[str, Any], random_: random.Random) -> None:
    row[random_.choice(list(row))] = random_.choice(TEXTS)


def text_of(rows: list[Any], kind: str, random_: random.Random) -> str:
    if kind == ".json":
        return json.dumps(rows, ensure_ascii=random_.random() < 0.5, indent=random_.choice([None, 1]))
    if kind == ".jsonl":
        return "\n".join(json.dumps(row) for row in rows)
    content = io.StringIO()
    writer = csv.writer(content, delimiter="," if kind == ".csv" else "\t")
    keys = list(next((row for row in rows if isinstance(row, dict)), {"image": ""}))
    writer.writerow(keys)
    for row in rows:
        writer.writerow([cell(row.get(key)) for key in keys] if isinstance(row, dict) else [cell(row)])
    return content.getvalue()


def cell(value: object) -> str:
    return "" if value is None else value if isinstance(value, str) else str(value)[:5000]


def mutated(random_: random.Random, task: TaskName, kind: str) -> bytes:
    """A valid file of a few rows with one to three mistakes in its rows, in its bytes or in how it was saved."""
    valid = {key: value for key, value in VALID[task].items() if kind in (".json", ".jsonl") or key != "box"}
    rows: list[Any] = [dict(valid) for _ in range(random_.randrange(1, 6))]
    way = random_.randrange(6)
    if way == 0:
        for _ in range(random_.randrange(1, 4)):
            change = random_.choice([strange_value, missing_key, renamed_key, extra_key, strange_text])
            change(random_.choice(rows), random_)
    if way == 1:
        rows[random_.randrange(len(rows))] = random_.choice(STRANGE)
    data = bytearray(text_of(rows, kind, random_).encode("utf-8", "surrogatepass"))
    if way == 2:
        for _ in range(random_.randrange(1, 4)):
            data[random_.randrange(len(data))] = random_.randrange(256)
    if way == 3:
        start = random_.randrange(len(data))
        data[start : start + random_.randrange(1, 20)] = random_.choice(PIECES)
    if way == 4:
        text = data.decode("utf-8", "surrogatepass")
        saved = random_.choice(SAVED)
        return saved(text)
    if way == 5:  # cut off, or with another one behind it
        return bytes(data[: random_.randrange(len(data))] if random_.random() < 0.5 else data + data)
    return bytes(data)


def read(path: Path, task: TaskName, split: str = "train") -> str:
    """What reading the whole file, and all that is asked of its rows, says; empty when it is (still) a valid one."""
    try:
        source = open_source(DataConfig(source=str(path)), split, 0, 16, task)
        assert all(note.isprintable() for note in source.notes)
        for index in range(len(source)):
            record = source.record(index, 0)
            for picture in filter(None, (record.image, record.second_image)):
                with contextlib.suppress(BadImage):
                    open_image(picture, obey_exif=True)
            another(source, index, record)
            soft_accuracy("yes", record.answers or ["no"], record.official)
        frequent_answers(source)
        check_answers(path, ["fox", "yes"], source) if record.answers == ("fox", "fox") else None
    except UserError as error:
        return str(error)
    return ""


def test_malformed_annotation_files(tmp_path: Path) -> None:
    refused, slowest = 0, 0.0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(FILES):
        random_ = random.Random(number)
        task, kind = random_.choice(list(VALID)), random_.choice([".json", ".jsonl", ".csv", ".tsv"])
        path = tmp_path / f"annotations{kind}"
        path.write_bytes(mutated(random_, task, kind))
        begun = time.process_time()
        said = read(path, task, random_.choice(["train", "test"]))
        slowest = max(slowest, time.process_time() - begun)
        if said:
            refused += 1
            assert path.name in said, said
            assert said.isprintable(), said
            assert re.search(
                r"row \d|line \d|header|holds no rows|not a list|not UTF-8|none of the|is empty|UTF-16|unpack|\.[tc]sv",
                said,
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
