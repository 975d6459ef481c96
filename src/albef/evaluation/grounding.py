"""Grounding: does the map of a phrase lie on what it means? (paper §5.5)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from albef.config import UserError
from albef.data.pictures import BadPicture, open_picture
from albef.data.records import Box, Record
from albef.data.sources import Source
from albef.engine import Engine
from albef.evaluation.evaluate import Metric, with_interval
from albef.evaluation.judged import cluster_of, of_all, shown
from albef.model.maps import box_of_map, contrast_maps, enlarged, word_maps

ENOUGH_OVERLAP = 0.5
ROUNDING = 2.0  # pixels by which a box may reach beyond its picture
Score = Literal["itm", "itc"]
SCORES: tuple[Score, ...] = ("itm", "itc")


@dataclass(frozen=True)
class Grounded:
    """Where a phrase was found, and where it is."""

    box: Box  # from the map itself
    true_box: Box
    chosen: Box | None  # of the proposals
    pointed: bool  # the map's highest point lies in the true box
    cluster: int  # see `cluster_of`

    @property
    def right(self) -> bool:
        """Whether the chosen proposal (or, without any, the map's own box) covers the true box well enough."""
        return overlap(self.chosen or self.box, self.true_box) >= ENOUGH_OVERLAP


def ground_all(
    engine: Engine, source: Source, layer: int | None, shuffled: bool, bad: dict[int, BadPicture]
) -> Iterator[dict[Score, Grounded]]:
    """Each phrase grounded in its picture (for the blind control: in another one), by either score's map."""
    if not engine.can_match:
        raise UserError(f"This model was trained for {engine.trained_for}, without matching (itm).")
    for batch in shown(engine, source, shuffled, bad, obey_exif=False):  # boxes are of pictures as stored
        ids, mask = engine.text_tokens([record.captions[0] for record in batch.records])
        with engine.computing():
            itm = word_maps(engine.model, batch.pixels, ids, mask, layer).sum(1)
            itc = contrast_maps(engine.model, batch.pixels, ids, mask)
        for record, *maps in zip(batch.records, itm, itc, strict=True):
            image = open_picture(record.image, obey_exif=False, shrink=False)
            size = image.shape[1], image.shape[0]
            if record.box is None:
                raise UserError(
                    f'{record.origin}: the key "box" is missing; evaluation needs [left, top, width, height] in pixels '
                    f"of what the phrase means."
                )
            check_inside(record.box, size, f"{record.origin}: the box")
            for box in record.proposals:
                check_inside(box, size, f"{record.origin}: the proposed box")
            by_score = zip(SCORES, (enlarged(one, size) for one in maps), strict=True)
            yield {score: grounded(record, map_) for score, map_ in by_score}


def check_inside(box: Box, size: tuple[int, int], what: str) -> None:
    """Raises `UserError` for a box that reaches beyond a picture of (width, height): it is another picture's."""
    left, top, width, height = box
    beyond = max(-left, -top, left + width - size[0], top + height - size[1])
    if beyond > ROUNDING:
        raise UserError(
            f"{what} {list(box)} reaches {beyond:.0f} pixels beyond the picture, which has {size[0]} × {size[1]}; "
            f"it belongs to another picture, or to this one in another size. Correct it."
        )


def grounded(record: Record, map_: np.ndarray) -> Grounded:
    """What a map of the picture's size says of where the phrase of a record with a box is."""
    assert record.box is not None
    row, column = np.unravel_index(int(map_.argmax()), map_.shape)
    left, top, width, height = record.box
    x, y = float(column) + 0.5, float(row) + 0.5
    pointed = left <= x <= left + width and top <= y <= top + height
    chosen = best_proposal(map_, record.proposals) if record.proposals else None
    return Grounded(box_of_map(map_), record.box, chosen, pointed, cluster_of(record))


def evaluate_grounding(
    engine: Engine, source: Source, name: str, layer: int | None = None, shuffled: bool = False
) -> Iterator[Metric]:
    """ "{name}/{score}_proposals", and without any proposals "…_pointing" and "…_map_box": accuracies with intervals.

    The score whose map it is: "itm", matching (`layer` of the fusion encoder), or "itc", contrast. A box is right from
    an intersection over union of 0.5 on.
    """
    found, bad = of_all(lambda bad: ground_all(engine, source, layer, shuffled, bad))
    if not found:
        raise UserError("No phrase with a readable picture is left to evaluate.")
    for score in SCORES:
        ones = [each[score] for each in found]
        clusters = [one.cluster for one in ones]
        right: dict[str, list[bool]] = {}
        if all(one.chosen is not None for one in ones):
            right["proposals"] = [one.right for one in ones]
        right["pointing"] = [one.pointed for one in ones]
        right["map_box"] = [overlap(one.box, one.true_box) >= ENOUGH_OVERLAP for one in ones]
        for metric, values in right.items():
            yield from with_interval(f"{name}/{score}_{metric}", np.array(values, dtype=float), clusters)
    yield f"{name}/count", float(len(found))
    yield f"{name}/skipped", float(len(bad))


def best_proposal(map_: np.ndarray, proposals: Sequence[Box]) -> Box:
    """The box with the most of the map by the square root of its area (docs/published.md); the first of equals."""
    return max(proposals, key=lambda box: activation(map_, box))


def activation(map_: np.ndarray, box: Box) -> float:
    """Sum of the map inside a box, by the square root of the box's area."""
    left, top, width, height = (int(side) for side in box)
    inside = map_[max(top, 0) : top + height, max(left, 0) : left + width]
    return float(inside.sum()) / max(width * height, 1) ** 0.5


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0–1."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)
