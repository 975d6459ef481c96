"""Regions of images: what a detector found, as a file holds it for one image, and as a batch of tensors.

A system that sees regions reads them from files that were made beforehand. Nothing detects anything here.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64
from torch import Tensor

from albef.data.images import BadImage
from albef.manifest import plain
from albef.model_config import ModelConfig

LARGEST_BYTES = 2**26  # of one image's regions: 100 regions of 2,048 numbers take 0.8 MB
MOST_REGIONS = 100  # of an image, in all published files
LONGEST_TAGS = 10_000  # characters of an image's tags; those of 100 objects take about 1,000
HIDDEN_SHARE = 0.15  # of the regions, in training
SLACK = 1e-5  # how far a box may reach out of its image, as a share of the image; published for LXMERT


class Tags(NamedTuple):
    """Names of the objects in images, as token ids without [CLS]. An image with tags has [SEP] after the last one."""

    ids: Int[Tensor, "images length"]
    mask: Bool[Tensor, "images length"]  # True = a token, False = padding, which follows the tags

    @classmethod
    def none(cls, images: int, device: torch.device) -> Tags:
        """The tags of images that have none."""
        ids = torch.zeros(images, 0, dtype=torch.long, device=device)
        return cls(ids, ids.bool())

    def select(self, image_index: Int[Tensor, " chosen"]) -> Tags:
        """The tags of these images."""
        return Tags(self.ids[image_index], self.mask[image_index])

    def cut(self, room: Int[Tensor, " images"]) -> Tags:
        """At most so many tokens of the tags of each image. Tags that are cut end in [SEP] too."""
        place = torch.arange(self.ids.shape[1], device=self.ids.device)
        real = self.mask.sum(1, keepdim=True)
        kept = torch.minimum(real, room[:, None])
        closing = self.ids.gather(1, (real - 1).clamp(min=0)) if len(place) else self.ids
        return Tags(torch.where(place == kept - 1, closing, self.ids), place < kept)

    def expand(self, images: int) -> Tags:
        """The tags again, or those of a single image for each of `images`."""
        return Tags(self.ids.expand(images, -1), self.mask.expand(images, -1))


class Regions(NamedTuple):
    """What a detector found in images: the visual of these systems. Images with fewer regions are padded with zeros."""

    features: Float[Tensor, "images regions width"]
    # left, top, right, bottom, as shares of the image's width and height; then what a published file says besides
    boxes: Float[Tensor, "images regions numbers"]
    mask: Bool[Tensor, "images regions"]  # True = a region, False = padding
    tags: Tags | None = None  # the names of the objects, in systems that read them

    def moved(self, move: Callable[[Tensor], Tensor]) -> Regions:
        """The same regions, each tensor moved."""
        tags = None if self.tags is None else Tags(*map(move, self.tags))
        return Regions(move(self.features), move(self.boxes), move(self.mask), tags)

    def to(self, device: torch.device) -> Regions:
        """The same regions on another device."""
        return self.moved(lambda tensor: tensor.to(device))


@dataclass(frozen=True)
class ImageRegions:
    """What a detector found in one image, as a file holds it. What a file does not say is None."""

    features: Float32[np.ndarray, "regions width"]
    # left, top, right, bottom, as shares of the image's width and height; then what a published file says besides
    boxes: Float32[np.ndarray, "regions numbers"]
    object_ids: Int64[np.ndarray, " regions"] | None = None  # numbers of their classes
    object_confidences: Float32[np.ndarray, " regions"] | None = None  # how sure the detector is, from 0 to 1
    attribute_ids: Int64[np.ndarray, " regions"] | None = None
    attribute_confidences: Float32[np.ndarray, " regions"] | None = None
    classes: Float32[np.ndarray, "regions classes"] | None = None  # probabilities, with the background
    tags: tuple[str, ...] | None = None  # the names of the objects; empty: the detector knew none of them

    def __len__(self) -> int:
        return len(self.features)


class RegionStore(Protocol):
    """Where the regions of images are."""

    def has(self, image: Path) -> bool:
        """Whether there are regions of an image. They may still be broken."""

    def of(self, image: Path | np.ndarray) -> ImageRegions:
        """The regions of an image. Raises `BadImage`, which names the image, if there are none or if they are broken."""


class Labels(NamedTuple):
    """What a task learns of what the detector says about regions, by the names of `ImageRegions`."""

    names: tuple[str, ...]
    needed: bool = True  # False: an image without them is learned from too


class LabelledRegions:
    """The regions of another store, with labels that a model of these sizes can learn."""

    def __init__(self, store: RegionStore, labels: Labels, config: ModelConfig) -> None:
        self.store, self.labels, self.config = store, labels, config

    def has(self, image: Path) -> bool:
        """As the other store."""
        return self.store.has(image)

    def of(self, image: Path | np.ndarray) -> ImageRegions:
        """The regions of an image. Raises `BadImage` too if a label is missing, or is none of the model's."""
        found = self.store.of(image)
        place = "a generated image" if isinstance(image, np.ndarray) else str(image)
        sizes = {"object_ids": "num_objects", "attribute_ids": "num_attributes", "classes": "num_objects"}
        for name in self.labels.names:
            given = getattr(found, name)
            if given is None:
                if self.labels.needed:
                    raise BadImage(
                        f"{place}: its regions have no {name}, from which a model of system {self.config.system} learns "
                        f"in pre-training; make them with {name} (docs/data.md), or train another task."
                    )
            elif name in sizes:
                check_classes(given, name, sizes[name], getattr(self.config, sizes[name]), place)
        return found


def check_classes(given: np.ndarray, name: str, setting: str, size: int, place: str) -> None:
    """Raises `BadImage` for classes that are not those of the model."""
    if given.ndim == 2 and given.shape[1] != size:
        raise BadImage(
            f"{place}: {name} has {given.shape[1]:,} probabilities for each region, but model.{setting} is {size:,}; "
            f"set model.{setting}, or make the regions again. The background is a class too, the first one."
        )
    if given.ndim == 1 and given.max() >= size:
        raise BadImage(
            f"{place}: {name} holds {given.max():,}, but model.{setting} is {size:,} and classes are counted from 0; "
            f"set model.{setting} to their number, or make the regions again."
        )


class RegionFolder:
    """An .npz for each image, with the image's name: beside the images, or in a folder of their own.

    It holds `features` [regions, width] and `boxes` [regions, 4] (left, top, right, bottom, as shares of the image's
    width and height), and may hold `object_ids`, `object_confidences`, `attribute_ids`, `attribute_confidences`,
    `classes` and `tags` (texts).
    """

    def __init__(self, width: int, folder: Path | None = None) -> None:
        self.width = width  # of features
        self.folder = folder  # None: beside the images

    def has(self, image: Path) -> bool:
        """Whether there is a file with the image's name."""
        return self.file_of(image).is_file()

    def file_of(self, image: Path) -> Path:
        """Where the regions of an image are."""
        return (self.folder or image.parent) / f"{image.stem}.npz"

    def of(self, image: Path | np.ndarray) -> ImageRegions:
        """The regions of an image, from the file with its name."""
        image = path_of(image)
        file = self.file_of(image)
        if not file.is_file():
            raise BadImage(
                f"{image}: has no regions: there is no {file}. Make one with the arrays features and boxes "
                f"(docs/data.md), or name where they are with data.regions (--regions)."
            )
        found = read_npz(file)
        check_width(found, self.width, str(file))
        return found


def path_of(image: Path | np.ndarray) -> Path:
    """The image's file. Raises `BadImage` for an image that has none, so that nothing names its regions."""
    if isinstance(image, np.ndarray):
        raise BadImage("the image: has no file, so its regions cannot be found; give a path.")
    return image


def check_width(regions: ImageRegions, width: int, place: str) -> None:
    """Raises `BadImage` for features that are not as wide as the model takes them."""
    if regions.features.shape[1] != width:
        raise BadImage(
            f"{place}: the features of its regions are {regions.features.shape[1]} numbers wide, but the model takes "
            f"{width}; set model.region_width, or make the regions again."
        )


def read_npz(file: Path) -> ImageRegions:
    """The regions in an .npz file. Raises `BadImage` for anything else; nothing in it is run."""
    return regions_of(read_arrays(file, str(file)), str(file))


def read_arrays(file: Path | BinaryIO, place: str) -> dict[str, np.ndarray]:
    """The arrays in an .npz file, whose size is checked before any is read. Raises `BadImage` for anything else."""
    try:
        with zipfile.ZipFile(file) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
        if size <= LARGEST_BYTES:
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # on broken content the readers of archives and of arrays may raise anything
        raise BadImage(f"{place}: cannot be read as regions ({plain(error)}); make it again.") from None
    raise BadImage(f"{place}: holds {size:,} bytes, more than the regions of one image can be.")


def regions_of(arrays: dict[str, np.ndarray], place: str) -> ImageRegions:
    """The regions in named arrays. `place` says in errors where they stand."""
    for name in ("features", "boxes"):
        if name not in arrays:
            raise BadImage(f"{place}: has no array {name}; regions have features and boxes.")
    count = len(arrays["features"]) if arrays["features"].ndim == 2 else 0
    shapes = {"features": (count, -1), "boxes": (count, 4), "classes": (count, -1)}
    numbers = {}
    for name in ("features", "boxes", "object_confidences", "attribute_confidences", "classes"):
        if name in arrays:
            numbers[name] = checked(arrays[name], shapes.get(name, (count,)), name, place).astype(np.float32)
            if not np.isfinite(numbers[name]).all():
                raise BadImage(f"{place}: {name} holds a number that is not finite; make the file again.")
    for name in ("object_ids", "attribute_ids"):
        if name in arrays:
            classes = checked(arrays[name], (count,), name, place)
            if classes.dtype.kind not in "iu" or classes.min() < 0:
                raise BadImage(f"{place}: {name} must hold numbers of classes, counted from 0.")
            numbers[name] = classes.astype(np.int64)
    check_boxes(numbers["boxes"], place)
    tags = checked_tags(arrays["tags"].reshape(-1).tolist(), place) if "tags" in arrays else None
    return ImageRegions(**numbers, tags=tags)


def checked_tags(tags: Sequence[object], place: str) -> tuple[str, ...]:
    """The names of an image's objects. Raises `BadImage` if they are no texts, or longer than any text is read."""
    names = tuple(tag for tag in tags if isinstance(tag, str))
    if len(names) != len(tags):
        raise BadImage(f"{place}: its tags must be texts, the names of objects.")
    length = sum(map(len, names))
    if length > LONGEST_TAGS:
        raise BadImage(
            f"{place}: its tags have {length:,} characters, more than the {LONGEST_TAGS:,} that are read; name fewer "
            f"objects."
        )
    return names


def checked(array: np.ndarray, shape: tuple[int, ...], name: str, place: str) -> np.ndarray:
    """The array, if it has this shape (-1: any length) with at least one region. Raises `BadImage` otherwise."""
    fits = array.ndim == len(shape) and all(
        want in (-1, has) for want, has in zip(shape, array.shape, strict=True)
    )
    if not fits or 0 in array.shape or array.dtype.kind not in "iuf":
        wanted = " × ".join("width" if want < 0 else str(want) for want in shape)
        raise BadImage(
            f"{place}: {name} is {array.dtype} {list(array.shape)}, but it must be numbers, {wanted}."
        )
    return array


def check_boxes(boxes: Float32[np.ndarray, "regions numbers"], place: str) -> None:
    """Raises `BadImage` for boxes out of their image, or with their sides exchanged."""
    if boxes.min() < -SLACK or boxes.max() > 1 + SLACK:
        raise BadImage(
            f"{place}: a box reaches out of its image ({boxes.min():g} to {boxes.max():g}); boxes are left, top, right, "
            f"bottom as shares of the image, from 0 to 1."
        )
    if (boxes[:, 2:4] < boxes[:, :2]).any():
        raise BadImage(f"{place}: a box ends before it begins; boxes are left, top, right, bottom.")


def sample_hidden(
    count: int, rng: np.random.Generator, probability: float = HIDDEN_SHARE
) -> Bool[np.ndarray, " regions"]:
    """Which regions are hidden and to be predicted: each with `probability`, and one if that is none (UNITER, §3.2)."""
    hidden = rng.random(count) < probability
    if count and not hidden.any():
        hidden[rng.integers(count)] = True
    return hidden


class RegionBatch(NamedTuple):
    """The regions of several images as arrays, padded with zeros to the most regions."""

    features: Float32[np.ndarray, "images regions width"]
    boxes: Float32[np.ndarray, "images regions numbers"]
    mask: Bool[np.ndarray, "images regions"]
    object_ids: Int64[np.ndarray, "images regions"] | None
    object_confidences: Float32[np.ndarray, "images regions"] | None
    attribute_ids: Int64[np.ndarray, "images regions"] | None
    attribute_confidences: Float32[np.ndarray, "images regions"] | None
    classes: Float32[np.ndarray, "images regions classes"] | None


def batch_of_regions(images: Sequence[ImageRegions]) -> RegionBatch:
    """The regions of several images. What one of them lacks is None for all, and so are classes of other detectors."""
    most = max(map(len, images))
    mask = np.arange(most) < np.array([[len(image)] for image in images])
    found: dict[str, np.ndarray | None] = {}
    for name in RegionBatch._fields:
        if name == "mask":
            continue
        parts = [getattr(image, name) for image in images]
        if name == "boxes":  # some files hold more numbers, which follow from the first
            parts = [boxes[:, : min(len(other[0]) for other in parts)] for boxes in parts]
        alike = len({None if part is None else part.shape[1:] for part in parts}) == 1
        found[name] = stacked(parts, most) if alike and parts[0] is not None else None
    return RegionBatch(mask=mask, **found)  # type: ignore[arg-type]


def stacked(parts: Sequence[np.ndarray], most: int) -> np.ndarray:
    """Arrays of different lengths as one, padded with zeros."""
    whole = np.zeros((len(parts), most, *parts[0].shape[1:]), parts[0].dtype)
    for row, part in zip(whole, parts, strict=True):
        row[: len(part)] = part
    return whole
