"""COCO captions for pre-training, from the official training annotations of 2014 or 2017."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from albef.config import UserError
from albef.data.prepare.reading import Row, find, number_at, objects
from albef.data.prepare.writing import Files, Training
from albef.data.rows import text_at


def coco_captions(source: Path, files: Files) -> Training:
    """Writes coco_captions.json, a row per caption."""
    annotations = find(
        source,
        "captions_train2014.json",
        "captions_train2017.json",
        origin="COCO, annotations_trainval2014.zip or annotations_trainval2017.zip",
    )
    images = annotations.stem.removeprefix("captions_")
    folder = files.images(images, origin=f"COCO, {images}.zip")
    files.rows("coco_captions.json", "pretrain", caption_rows(annotations, folder))
    return Training("own-data", {"source": "coco_captions.json"})


def caption_rows(annotations: Path, folder: Path) -> Iterator[Row]:
    """The captions in the order of the file."""
    names = {
        number_at(row, "id", where): text_at(row, "file_name", where)
        for where, row in objects(annotations, "images")
    }
    for where, row in objects(annotations, "annotations"):
        number = number_at(row, "image_id", where)
        if number not in names:
            raise UserError(f'{where}: "image_id" is {number}, but "images" has no such id.')
        yield (
            where,
            {
                "image": str(folder / names[number]),
                "caption": text_at(row, "caption", where).strip(),
                "image_id": f"coco_{number}",
            },
        )
