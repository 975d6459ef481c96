"""A model's answer to each record, whether it is right, and how much of it comes from the image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from albef import distributed
from albef.config import UserError
from albef.data.images import BadImage, open_image
from albef.data.records import Record, stable_id
from albef.data.sources import Source
from albef.engine import Engine, made_ahead
from albef.evaluation.evaluate import Metric, with_interval

AT_ONCE = 64
T = TypeVar("T")


@dataclass(frozen=True)
class Judged:
    """A model's answer to one record."""

    index: int  # of the record in its source
    expected: str
    answered: str
    probability: float  # that the model gives to its answer
    score: float  # 1 right, 0 wrong; in between if people disagree
    cluster: int  # see `cluster_of`


def cluster_of(record: Record) -> int:
    """A number that records with the same image share, since their answers are not independent.

    Statements about two images share their set of images, the second part of their key (NLVR2).
    """
    if record.second_image is not None and record.key:
        return stable_id("-".join(record.key.split("-")[:2]))
    return stable_id(str(record.image)) if record.image_id is None else record.image_id


@dataclass(frozen=True)
class Shown:
    """Records with their images as the model takes them: all first ones, then all second ones."""

    indices: list[int]
    records: list[Record]
    visual: Any


def shown(
    engine: Engine, source: Source, shuffled: bool, bad: dict[int, BadImage], obey_exif: bool = True
) -> Iterator[Shown]:
    """All records of the source, batch by batch. Records with unreadable images are noted in `bad` instead.

    Each of several processes gets its share. With `shuffled` every record gets the images of another one (the blind
    control). Raises `UserError` if there are no others. `obey_exif` turns images upright by their EXIF data.
    """
    sight = engine.prepare.sight

    def seen(image: Path | np.ndarray) -> Any:
        if not obey_exif:  # boxes are in pixels of the whole image
            transparent = engine.config.transparent
            image = open_image(image, obey_exif=False, transparent=transparent, shrink=False)
        return sight.read(image)

    def records(indices: range) -> Iterator[tuple[int, Record, list[Path | np.ndarray]]]:
        for index in indices:
            record = source.record(index, 0)
            other = another(source, index, record) if shuffled else record
            if other is None:
                raise UserError(
                    f"{record.origin}: no row has another image, but the blind control needs one. Leave the control out."
                )
            images = [other.image] if other.second_image is None else [other.image, other.second_image]
            yield index, record, images

    def read(one: tuple[int, Record, list[Path | np.ndarray]]) -> tuple[int, Record, list[Any] | BadImage]:
        index, record, images = one
        try:
            return index, record, [seen(image) for image in images]
        except BadImage as error:
            return index, record, error

    own = distributed.share(len(source), AT_ONCE)
    made = made_ahead(read, records(own), engine.decoding_threads)
    starts = range(own.start, own.stop, AT_ONCE)
    for _ in engine.track(starts, "evaluating", len(starts)):
        chunk = []
        for index, record, found in islice(made, AT_ONCE):
            if isinstance(found, BadImage):
                bad[index] = found
            else:
                chunk.append((index, record, found))
        if not chunk:
            continue
        indices, some, images = zip(*chunk, strict=True)
        in_order = [image for column in zip(*images, strict=True) for image in column]
        yield Shown(list(indices), list(some), engine.placed_visual(sight.batch(in_order)))


def of_all(
    judge: Callable[[dict[int, BadImage]], Iterable[T]],
) -> tuple[list[T], dict[int, BadImage]]:
    """The results of `judge` for all records in order, from all processes, and the unreadable images."""

    def own() -> tuple[list[T], dict[int, BadImage]]:
        bad: dict[int, BadImage] = {}
        return list(judge(bad)), bad

    parts = distributed.from_each(own)
    unreadable = {index: error for _, bad in parts for index, error in bad.items()}
    return [one for found, _ in parts for one in found], unreadable


def another(source: Source, index: int, record: Record) -> Record | None:
    """A record with another image: the first one from half a round ahead in the source. None if there is none."""
    for step in range(len(source)):
        number = (index + len(source) // 2 + step) % len(source)
        if number == index:
            continue
        seen = source.record(number, 0)
        if seen.image_id is None or seen.image_id != record.image_id:
            return seen
    return None


def judged_metrics(
    name: str,
    found: Sequence[Judged],
    bad: dict[int, BadImage],
    group: Callable[[Judged], str] | None = None,
    metric: str = "accuracy",
) -> Iterator[Metric]:
    """ "{name}/{metric}" with its interval, "{name}/count", "{name}/skipped", and "{name}/{metric}_{group}" by group.

    Raises `UserError` if nothing could be judged.
    """
    if not found:
        reason = f" ({next(iter(bad.values()))})" if bad else ""
        raise UserError(f"No record with a readable image is left to evaluate{reason}.")
    scores = np.array([judged.score for judged in found])
    clusters = np.array([judged.cluster for judged in found])
    yield from with_interval(f"{name}/{metric}", scores, clusters)
    yield f"{name}/count", float(len(found))
    yield f"{name}/skipped", float(len(bad))
    if group is not None:
        groups = [group(judged) for judged in found]
        for each in sorted(set(groups)):
            own = [other == each for other in groups]
            yield from with_interval(f"{name}/{metric}_{each}", scores[own], clusters[own])
