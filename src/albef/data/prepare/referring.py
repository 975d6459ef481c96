"""RefCOCO, RefCOCO+ and RefCOCOg for grounding: phrases for a thing in a COCO image, and its box."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from albef.config import UserError
from albef.data.prepare.plain_pickle import read_plain_pickle
from albef.data.prepare.reading import Row, find, number_at, object_in, objects, objects_at, search
from albef.data.prepare.writing import Files, Training
from albef.data.rows import are_pixels, kind, require_key, text_at
from albef.data.text_files import quoted, unusable

SPLITS = ("train", "val", "testA", "testB", "test")  # A: people, B: other things; RefCOCOg has only "test"


def refcoco(source: Path, files: Files) -> Training:
    """Writes refcoco_train.json, refcoco_val.json, refcoco_testA.json and refcoco_testB.json."""
    return referring("refcoco", ("refs(unc).p",), source, files)


def refcoco_plus(source: Path, files: Files) -> Training:
    """Writes refcoco+_train.json, refcoco+_val.json, refcoco+_testA.json and refcoco+_testB.json."""
    return referring("refcoco+", ("refs(unc).p",), source, files)


def refcocog(source: Path, files: Files) -> Training:
    """Writes refcocog_train.json, refcocog_val.json and refcocog_test.json. Google's splits have no test."""
    return referring("refcocog", ("refs(umd).p", "refs(google).p"), source, files)


@dataclass(frozen=True)
class Instances:
    """The images and boxes of COCO by their numbers."""

    names: dict[int, str]
    boxes: dict[int, list[float]]


def referring(name: str, refs_names: tuple[str, ...], source: Path, files: Files) -> Training:
    """Writes a file per split that the references have, and dets.json if there are detections."""
    origin = f"{name}.zip of the REFER data, in a folder {name}"
    path = find(source, *(f"{name}/{refs_name}" for refs_name in refs_names), origin=origin)
    instances = read_instances(find(source, f"{name}/instances.json", origin=origin))
    folder = find(source, "train2014", origin="COCO 2014, train2014.zip").relative_to(source)
    refs = read_refs(path)
    for split in SPLITS:
        if any(ref["split"] == split for _, ref in refs):
            rows = phrase_rows(refs, split, instances, folder)
            files.rows(f"{name}_{split}.json", "grounding", rows)
    names = {"source": f"{name}_train.json", "validation": f"{name}_val.json"}
    detections = search(source, f"{name}/dets.json")
    if detections:
        files.document("dets.json", read_detections(detections))
        names["detections"] = "dets.json"
    return Training("grounding", names)


def read_refs(path: Path) -> list[Row]:
    """The references, each with its place. Raises `UserError` for an unknown split."""
    refs = read_plain_pickle(path)
    if not isinstance(refs, list):
        raise UserError(f"{path}: must hold a list of references, found {kind(refs)}.")
    rows = [
        (where, object_in(ref, where))
        for where, ref in ((f"{path}, reference {number}", ref) for number, ref in enumerate(refs, start=1))
    ]
    for where, ref in rows:
        if text_at(ref, "split", where) not in SPLITS:
            raise UserError(
                f'{where}: "split" is {quoted(ref["split"])}; it must be one of {", ".join(SPLITS)}.'
            )
    return rows


def read_instances(path: Path) -> Instances:
    """The image names and boxes of instances.json."""
    names = {
        number_at(row, "id", where): text_at(row, "file_name", where)
        for where, row in objects(path, "images")
    }
    boxes = {}
    for where, row in objects(path, "annotations"):
        require_key(row, "bbox", where)
        boxes[number_at(row, "id", where)] = row["bbox"]
    return Instances(names, boxes)


def phrase_rows(refs: list[Row], split: str, instances: Instances, folder: Path) -> Iterator[Row]:
    """A row per phrase. The image's name comes from the instances, since the reference names a crop."""
    for where, ref in refs:
        if ref["split"] != split:
            continue
        image, thing = number_at(ref, "image_id", where), number_at(ref, "ann_id", where)
        for key, number, known in (
            ("image_id", image, instances.names),
            ("ann_id", thing, instances.boxes),
        ):
            if number not in known:
                raise UserError(f'{where}: "{key}" is {number}, which instances.json does not have.')
        for sentence in objects_at(ref, "sentences", where):
            yield (
                where,
                {
                    "image": str(folder / instances.names[image]),
                    "text": text_at(sentence, "sent", where),
                    "ref_id": number_at(ref, "ref_id", where),
                    "box": instances.boxes[thing],
                },
            )


def read_detections(path: Path) -> dict[str, Any]:
    """The boxes that a detector proposed, by the number of their image."""
    try:
        detections = json.loads(path.read_text("utf-8-sig"))
    except Exception as error:  # broken content may raise anything
        raise unusable(path, "as JSON", error) from None
    for number, boxes in object_in(detections, str(path)).items():
        if not number.isdigit() or not isinstance(boxes, list) or not all(is_box(box) for box in boxes):
            raise UserError(
                f"{path}, key {quoted(number)}: expected an image's number and boxes [[x, y, width, height, …], …]."
            )
    return dict(detections)


def is_box(box: object) -> bool:
    """Whether the value begins with four numbers of pixels."""
    return isinstance(box, list) and len(box) >= 4 and are_pixels(box[:4])
