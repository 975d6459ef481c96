"""Regions of images from files in LXMERT's format: `*_obj36.tsv`, one image a line, arrays as base64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from albef.data.images import BadImage
from albef.data.regions import SLACK, ImageRegions
from albef.data.tsv_rows import LONGEST_ROW, base64_numbers, row_at, row_offsets, text_of
from albef.errors import UserError

COLUMNS = (
    "img_id",
    "img_h",
    "img_w",
    "objects_id",
    "objects_conf",
    "attrs_id",
    "attrs_conf",
    "num_boxes",
    "boxes",
    "features",
)


@dataclass(frozen=True)
class DetectedImage:
    """A line of the file: an image, and what a detector found in it."""

    image_id: str
    height: int  # in pixels
    width: int
    pixel_boxes: Float32[np.ndarray, "regions 4"]  # left, top, right, bottom
    regions: ImageRegions


class LxmertTsv:
    """A file of regions in LXMERT's format, whose images are found by their names without ending."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.offsets = row_offsets(file)

    def key(self, image: Path) -> str | None:
        """What the file calls an image. None if it is not in it."""
        return image.stem if image.stem in self.offsets else None

    def read(self, key: str) -> ImageRegions:
        """The regions in a row. Raises `BadImage` if the row is broken."""
        found = regions_of(row_at(self.file, self.offsets[key]), f"{self.file}, image {key}")
        if found.image_id != key:
            raise BadImage(f"{self.file}: was changed since it was opened; start again.")
        return found.regions


def read_regions(file: Path) -> Iterator[DetectedImage]:
    """The regions of each image of a file, line by line. Raises `BadImage` for a line that is not what it must be.

    Format: github.com/airsplay/lxmert, src/utils.py. Arrays are little-endian and read-only.
    """
    try:
        with file.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(LONGEST_ROW), b""), 1):
                yield regions_of(line, f"{file}, line {number}")
    except FileNotFoundError:
        raise UserError(f"{file}: no such file.") from None


def regions_of(line: bytes, place: str) -> DetectedImage:
    """The regions of one line. `place` says in errors where it stands."""
    fields = line.rstrip(b"\r\n").split(b"\t")
    if len(fields) != len(COLUMNS):
        raise BadImage(
            f"{place}: has {len(fields)} fields separated by tabs, but LXMERT's format has {len(COLUMNS)}: "
            f"{', '.join(COLUMNS)}."
        )
    row = dict(zip(COLUMNS, fields, strict=True))
    height, width, count = (positive(row, name, place) for name in ("img_h", "img_w", "num_boxes"))
    object_ids = decoded(row, "objects_id", "<i8", count, place)
    object_confidences = decoded(row, "objects_conf", "<f4", count, place)
    attribute_ids = decoded(row, "attrs_id", "<i8", count, place)
    attribute_confidences = decoded(row, "attrs_conf", "<f4", count, place)
    pixel_boxes = decoded(row, "boxes", "<f4", 4 * count, place).reshape(count, 4)
    boxes = pixel_boxes / np.array([width, height] * 2, np.float32)
    features = features_of(row, count, place)
    regions = ImageRegions(
        features, boxes, object_ids, object_confidences, attribute_ids, attribute_confidences
    )
    found = DetectedImage(text_of(row["img_id"]), height, width, pixel_boxes, regions)
    check(found, place)
    return found


def positive(row: dict[str, bytes], name: str, place: str) -> int:
    """A whole number above 0."""
    text = row[name].decode("ascii", "replace")
    if not (text.isascii() and text.isdigit() and int(text[:20]) > 0):
        raise BadImage(f"{place}: {name} is {text[:20]!r}, but it must be a whole number above 0.")
    return int(text[:20])


def array(row: dict[str, bytes], name: str, kind: str, place: str) -> np.ndarray:
    """The numbers of a base64 field."""
    return base64_numbers(row[name], kind, name, place)


def decoded(row: dict[str, bytes], name: str, kind: str, count: int, place: str) -> np.ndarray:
    """So many numbers of a base64 field."""
    found = array(row, name, kind, place)
    if len(found) != count:
        raise BadImage(
            f"{place}: {name} holds {len(found)} numbers, but num_boxes asks for {count}; the file is damaged, get it "
            f"again."
        )
    return found


def features_of(row: dict[str, bytes], count: int, place: str) -> np.ndarray:
    """The features, whose width follows from how many numbers there are."""
    found = array(row, "features", "<f4", place)
    if not len(found) or len(found) % count:
        raise BadImage(
            f"{place}: features holds {len(found)} numbers, which do not divide among {count} regions; the file is "
            f"damaged, get it again."
        )
    return found.reshape(count, -1)


def check(found: DetectedImage, place: str) -> None:
    """Raises `BadImage` for numbers that no detector gives."""
    regions = found.regions
    numbers = {
        "objects_conf": regions.object_confidences,
        "attrs_conf": regions.attribute_confidences,
        "boxes": found.pixel_boxes,
        "features": regions.features,
    }
    for name, values in numbers.items():
        assert values is not None
        if not np.isfinite(values).all():
            raise BadImage(f"{place}: {name} holds a number that is not finite; make the file again.")
    for name, ids in (("objects_id", regions.object_ids), ("attrs_id", regions.attribute_ids)):
        assert ids is not None
        if ids.min() < 0:
            raise BadImage(
                f"{place}: {name} holds {ids.min()}, but classes are counted from 0; make the file again."
            )
    if regions.boxes.min() < -SLACK or regions.boxes.max() > 1 + SLACK:
        raise BadImage(
            f"{place}: a box of image {found.image_id} reaches out of the image, which has {found.width} × "
            f"{found.height} pixels; boxes are left, top, right, bottom in pixels."
        )
