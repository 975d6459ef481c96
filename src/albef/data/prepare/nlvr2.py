"""NLVR2: statements about two images, whose names follow from the identifier."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from albef.config import UserError
from albef.data.json_rows import jsonl_rows
from albef.data.prepare.reading import Row, find, number_at, object_in, search
from albef.data.prepare.writing import Files, Training
from albef.data.rows import text_at
from albef.data.text_files import quoted

SPLITS = {"train": "train", "dev": "dev", "test": "test1"}  # our names and theirs
SECOND_TEST = "test2"  # held back at first, and published later


def nlvr2(source: Path, files: Files) -> Training:
    """Writes nlvr_train.json, nlvr_dev.json and nlvr_test.json; nlvr_test2.json if its images are there."""
    for split, name in SPLITS.items():
        annotations = find(source, f"{name}.json", origin="the repository lil-lab/nlvr, folder nlvr2/data")
        folder = files.images(f"images/{name}", name, origin=f"NLVR2's images, the folder of {name}")
        files.rows(f"nlvr_{split}.json", "nlvr", statement_rows(annotations, folder))
    second = search(source, f"{SECOND_TEST}.json"), search(source, f"images/{SECOND_TEST}", SECOND_TEST)
    if second[0] and second[1]:
        files.rows("nlvr_test2.json", "nlvr", statement_rows(second[0], second[1].relative_to(source)))
    return Training("nlvr", {"source": "nlvr_train.json", "validation": "nlvr_dev.json"})


def statement_rows(annotations: Path, folder: Path) -> Iterator[Row]:
    """The statements. Identifier split-set-pair-sentence is about split-set-pair-img0.png and -img1.png.

    Training images are in numbered folders, which "directory" names. The files have an object per line.
    """
    for place, value in jsonl_rows(annotations):
        where = f"{annotations}, {place}"
        row = object_in(value, where)
        identifier = text_at(row, "identifier", where)
        if identifier.count("-") != 3:
            raise UserError(
                f'{where}: "identifier" is {quoted(identifier)}; it must be split-set-pair-sentence.'
            )
        below = (
            folder / str(number_at(row, "directory", where)) if identifier.startswith("train-") else folder
        )
        pair = identifier.rpartition("-")[0]
        yield (
            where,
            {
                "images": [str(below / f"{pair}-img{side}.png") for side in (0, 1)],
                "sentence": text_at(row, "sentence", where),
                "label": text_at(row, "label", where),
                "identifier": identifier,
            },
        )
