"""Regions of images from OSCAR's and VinVL's files: TSV files of features and of labels, found by image ids."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from albef.data.images import BadImage
from albef.data.regions import SLACK, ImageRegions, checked_tags, regions_of
from albef.data.tsv_rows import base64_numbers, first_rows, indexed_offsets, row_at, text_of
from albef.errors import UserError
from albef.manifest import plain

BOX_NUMBERS = 6  # left, top, right, bottom, width, height, after the feature
LABELS = (
    "predictions.tsv",
    "predictions_gt.tsv",
)  # for retrieval, and with annotated objects for pre-training
COCO = re.compile(r"(?:COCO_\w+_)?0*([0-9]+)")  # its images are known by their numbers


class RowsByImage:
    """The rows of a TSV file whose first column names an image."""

    def __init__(self, file: Path, ids: Path | None = None) -> None:
        self.file = file
        self.offsets = indexed_offsets(file, ids)

    def key(self, image: Path) -> str | None:
        """What the file calls an image: its name, or its number in COCO. None if it is not in it."""
        number = COCO.fullmatch(image.stem)
        names = (image.stem, number[1]) if number else (image.stem,)
        return next((name for name in names if name in self.offsets), None)

    def fields(self, key: str) -> list[bytes]:
        """The other columns of an image's row."""
        name, *others = row_at(self.file, self.offsets[key]).split(b"\t")
        if text_of(name) != key:
            raise BadImage(
                f"{self.file}: .lineidx or imageid2idx.json beside it does not fit it, since the row of {key} is not "
                f"where they say; get all again, or remove both."
            )
        return others


class OscarTsv:
    """A `features.tsv` and the labels beside it, or in the folder above. Labels give the tags.

    Raises `UserError` without a file of labels, and for an index that does not fit.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self.features = RowsByImage(file, file.parent / "imageid2idx.json")
        self.labels = RowsByImage(labels_of(file))

    def key(self, image: Path) -> str | None:
        """What the file calls an image. None if it is not in it."""
        return self.features.key(image)

    def read(self, key: str) -> ImageRegions:
        """The regions of an image with their tags. Raises `BadImage` if a row is missing or broken."""
        regions = regions_in(self.features.fields(key), f"{self.file}, image {key}")
        place = f"{self.labels.file}, image {key}"
        if key not in self.labels.offsets:
            raise BadImage(f"{self.labels.file}: has no tags for image {key}; add a row for it.")
        found = parsed(self.labels.fields(key), place)
        annotated = found.get("gt_objects") if isinstance(found, dict) else None
        if annotated and self.labels.file.name == LABELS[1]:
            return dataclasses.replace(regions, tags=tags_of(objects_of(annotated, place), place))
        objects = objects_of(found, place)
        tags = tags_of(objects, place)
        confidences = confidences_of(objects, place) if len(objects) == len(regions) else None
        return dataclasses.replace(regions, tags=tags, object_confidences=confidences)


class VinvlTsv:
    """A `predictions.tsv` of VinVL's detector, which holds a feature for each object."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.objects = RowsByImage(file)

    def key(self, image: Path) -> str | None:
        """What the file calls an image. None if it is not in it."""
        return self.objects.key(image)

    def read(self, key: str) -> ImageRegions:
        """The regions of an image with their tags. Raises `BadImage` if its row is broken."""
        place = f"{self.file}, image {key}"
        found = parsed(self.objects.fields(key), place)
        objects = objects_of(found, place)
        if not objects:
            raise BadImage(f"{place}: has no objects, so there are no regions; leave the image out.")
        sides = np.array([size_of(found, name, place) for name in ("image_w", "image_h")] * 2, np.float32)
        features = [base64_numbers(text(one, "feature", place), "<f4", "feature", place) for one in objects]
        if len({len(feature) for feature in features}) > 1:
            raise BadImage(f"{place}: its objects have features of different widths; make the file again.")
        boxes = corners_of(objects, place) / sides
        regions = regions_of({"features": np.stack(features), "boxes": boxes}, place)
        return dataclasses.replace(
            regions,
            boxes=np.concatenate([boxes, boxes[:, 2:] - boxes[:, :2]], 1),
            object_confidences=confidences_of(objects, place),
            tags=tags_of(objects, place),
        )


def labels_of(features: Path) -> Path:
    """The file of labels that belongs to a file of features."""
    for folder in (features.parent, features.parent.parent):
        for name in LABELS:
            if (folder / name).is_file():
                return folder / name
    raise UserError(
        f"{features}: there is no {' or '.join(LABELS)} beside it, so its images have no tags; get the labels "
        f"too."
    )


def opened_tsv(file: Path) -> OscarTsv | VinvlTsv | None:
    """A file of OSCAR's or of VinVL's kind. None if it has no features, as files of labels have none."""
    for _, *fields in first_rows(file):
        whole = len(fields) == 2 and fields[0].strip().isdigit()
        if whole or (len(fields) == 1 and b'"features"' in fields[0]):
            return OscarTsv(file)
        if len(fields) == 1 and b'"feature"' in fields[0]:
            return VinvlTsv(file)
    return None


def regions_in(fields: Sequence[bytes], place: str) -> ImageRegions:
    """The regions in the columns after the id: their number and base64, or JSON with both (files for captioning)."""
    if len(fields) == 1:
        found = parsed(fields, place)
        count, content = size_of(found, "num_boxes", place), text(found, "features", place)
    else:
        given = text_of(fields[0]) if fields else ""
        count = int(given[:20]) if given.isascii() and given.isdigit() else 0
        content = text_of(fields[-1]) if fields else ""
    if count < 1:
        raise BadImage(f"{place}: has no regions, or no number of them; the file is damaged, get it again.")
    numbers = base64_numbers(content, "<f4", "the last column", place)
    width = len(numbers) // count
    if len(numbers) != count * width or width <= BOX_NUMBERS:
        raise BadImage(
            f"{place}: holds {len(numbers)} numbers, which are not feature and box of {count} regions; the file is "
            f"damaged, get it again."
        )
    numbers = numbers.reshape(count, width)
    check_boxes(numbers[:, -BOX_NUMBERS:], width, place)
    regions = regions_of({"features": numbers[:, :-BOX_NUMBERS], "boxes": numbers[:, -BOX_NUMBERS:-2]}, place)
    return dataclasses.replace(regions, boxes=numbers[:, -BOX_NUMBERS:])


def check_boxes(boxes: Float32[np.ndarray, "regions 6"], width: int, place: str) -> None:
    """Raises `BadImage` if the numbers after the features are no boxes."""
    if not (boxes.min() >= -SLACK and boxes.max() <= 1 + SLACK):  # not finite: neither
        raise BadImage(
            f"{place}: the last 6 of a region's {width:,} numbers are no box in the image; they must be left, top, "
            f"right, bottom, width and height as shares of it."
        )


def parsed(fields: Sequence[bytes], place: str) -> Any:
    """The JSON in the column after the id."""
    try:
        return json.loads(fields[-1])
    except (ValueError, IndexError, RecursionError) as error:
        raise BadImage(
            f"{place}: the second column is not JSON ({plain(error)}); get the file again."
        ) from None


def objects_of(found: Any, place: str) -> list[Any]:
    """The objects in the JSON of a row, which may also be a bare list of them."""
    objects = found.get("objects") if isinstance(found, dict) else found
    if not isinstance(objects, list):
        raise BadImage(f"{place}: has no list of objects; get the file again.")
    return objects


def corners_of(objects: Sequence[Any], place: str) -> Float32[np.ndarray, "objects 4"]:
    """Left, top, right and bottom of objects, in pixels."""
    try:
        corners = np.array([one["rect"] for one in objects], np.float64)
    except (KeyError, TypeError, ValueError, OverflowError):
        corners = np.zeros(0)
    if corners.shape != (len(objects), 4) or not (np.abs(corners) < 2**31).all():
        raise BadImage(f"{place}: a rect is not left, top, right, bottom in pixels; make the file again.")
    return corners.astype(np.float32)


def tags_of(objects: Sequence[Any], place: str) -> tuple[str, ...]:
    """The names of objects, in the file's order. Names that are repeated stay."""
    return checked_tags([text(one, "class", place) for one in objects], place)


def confidences_of(objects: Sequence[Any], place: str) -> Float32[np.ndarray, " objects"] | None:
    """How sure the detector is of each object. None if it does not say."""
    if not all("conf" in one for one in objects):
        return None
    given = [one["conf"] for one in objects]
    if not all(type(number) in (int, float) and 0 <= number <= 1 + SLACK for number in given):
        raise BadImage(f"{place}: a conf is not a number from 0 to 1; make the file again.")
    return np.array(given, np.float32)


def text(found: Any, name: str, place: str) -> str:
    """A text in a JSON object."""
    value = found.get(name) if isinstance(found, dict) else None
    if not isinstance(value, str):
        raise BadImage(f"{place}: an object has no {name}, which must be a text; make the file again.")
    return value


def size_of(found: Any, name: str, place: str) -> int:
    """A whole number above 0 in a JSON object."""
    value = found.get(name) if isinstance(found, dict) else None
    if type(value) is not int or not 0 < value < 2**31:
        raise BadImage(f"{place}: has no {name}, which must be a whole number above 0; make the file again.")
    return value
