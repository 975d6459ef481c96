"""Grounding: does the map of a phrase lie on what it means? (paper §5.5)"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from albef.config import UserError
from albef.data.images import BadImage, open_image
from albef.data.records import Box, Record
from albef.data.sources import Source
from albef.engine import Engine
from albef.evaluation.evaluate import Metric, with_interval
from albef.evaluation.judged import cluster_of, of_all, shown
from albef.evaluation.naming import words_on_their_own
from albef.model.maps import SCORES, box_of_map, enlarged, score_maps
from albef.model.published_maps import pair_maps

ENOUGH_OVERLAP = 0.5
ROUNDING = 2.0  # pixels by which a box may reach beyond its image
MAPPED_AT_ONCE = 16  # phrases: their images' states are kept for the backward pass
PUBLISHED = "published"  # the map of matching at one fusion layer, beside those of both scores


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


@dataclass(frozen=True)
class Answer:
    """What the maps of a record say: of its phrase, and of the words of a caption that names several things."""

    phrase: dict[str, Grounded]  # by the map: a score, or `PUBLISHED`
    words: dict[str, list[float]]  # by the score: of each thing's word, see `on_its_own`
    cluster: int


def ground_all(
    engine: Engine, source: Source, layer: int | None, shuffled: bool, bad: dict[int, BadImage]
) -> Iterator[Answer]:
    """Each phrase grounded in its image (for the blind control: in another one), by every map."""
    if not engine.can_match:
        raise UserError(f"This model was trained for {engine.trained_for}, without matching (itm).")
    for batch in shown(engine, source, shuffled, bad, obey_exif=False):  # boxes are of images as stored
        for start in range(0, len(batch.records), MAPPED_AT_ONCE):
            some = slice(start, start + MAPPED_AT_ONCE)
            records, pixels = batch.records[some], batch.pixels[some]
            sizes = [size_of(record) for record in records]
            phrases = [record.captions[0] for record in records]
            maps = phrase_maps(engine, pixels, phrases)
            with engine.computing():
                maps[PUBLISHED] = pair_maps(engine.model, pixels, *engine.text_tokens(phrases), layer)
            named = words_on_their_own(engine, records, pixels, sizes)
            for row, (record, size, words) in enumerate(zip(records, sizes, named, strict=True)):
                phrase = {name: grounded(record, enlarged(ones[row], size)) for name, ones in maps.items()}
                yield Answer(phrase, words, cluster_of(record))


def size_of(record: Record) -> tuple[int, int]:
    """Width and height of the record's image; raises `UserError` where its boxes can't be of it."""
    image = open_image(record.image, obey_exif=False, shrink=False)
    size = image.shape[1], image.shape[0]
    if record.box is None:
        raise UserError(
            f'{record.origin}: the key "box" is missing; evaluation needs [left, top, width, height] in pixels '
            f"of what the phrase means."
        )
    check_inside(record.box, size, f"{record.origin}: the box")
    for box in record.proposals:
        check_inside(box, size, f"{record.origin}: the proposed box")
    return size


def phrase_maps(
    engine: Engine, pixels: Float[Tensor, "phrases 3 height width"], phrases: Sequence[str]
) -> dict[str, Float[np.ndarray, "phrases grid grid"]]:
    """A map of each phrase and its image by both scores."""
    ids, mask = engine.text_tokens(phrases)
    no_words = torch.zeros(len(ids), 0, ids.shape[1], dtype=torch.bool, device=ids.device)
    with engine.computing():
        return {score: score_maps(engine.model, pixels, ids, mask, no_words, score).whole for score in SCORES}


def check_inside(box: Box, size: tuple[int, int], what: str) -> None:
    """Raises `UserError` for a box that reaches beyond an image of (width, height): it is another image's."""
    left, top, width, height = box
    beyond = max(-left, -top, left + width - size[0], top + height - size[1])
    if beyond > ROUNDING:
        raise UserError(
            f"{what} {list(box)} reaches {beyond:.0f} pixels beyond the image, which has {size[0]} × {size[1]}; "
            f"it belongs to another image, or to this one in another size. Correct it."
        )


def grounded(record: Record, map_: np.ndarray) -> Grounded:
    """What a map of the image's size says of where the phrase of a record with a box is."""
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
    """ "{name}/{map}_proposals", and without any proposals "…_pointing" and "…_map_box": accuracies with intervals.

    The map: "itm", of the log-odds of matching, "itc", of the similarity, or "published", of matching at fusion layer
    `layer`. A box is right from an intersection over union of 0.5 on. "{name}/{score}_words": how often the map of a
    word lies more on what it names than on another thing that its caption names (by chance: one half).
    """
    found, bad = of_all(lambda bad: ground_all(engine, source, layer, shuffled, bad))
    if not found:
        raise UserError("No phrase with a readable image is left to evaluate.")
    clusters = [answer.cluster for answer in found]
    for map_name in (*SCORES, PUBLISHED):
        ones = [answer.phrase[map_name] for answer in found]
        right: dict[str, list[bool]] = {}
        if all(one.chosen is not None for one in ones):
            right["proposals"] = [one.right for one in ones]
        right["pointing"] = [one.pointed for one in ones]
        right["map_box"] = [overlap(one.box, one.true_box) >= ENOUGH_OVERLAP for one in ones]
        for metric, values in right.items():
            yield from with_interval(f"{name}/{map_name}_{metric}", np.array(values, dtype=float), clusters)
    for score in SCORES:
        words = [(value, answer.cluster) for answer in found for value in answer.words[score]]
        if words:
            of_words, cluster_of_word = zip(*words, strict=True)
            yield from with_interval(f"{name}/{score}_words", np.array(of_words), cluster_of_word)
    yield f"{name}/count", float(len(found))
    yield f"{name}/skipped", float(len(bad))


def best_proposal(map_: np.ndarray, proposals: Sequence[Box]) -> Box:
    """The box with the most of the map by the square root of its area (docs/published.md); the first of equals."""
    return max(proposals, key=lambda box: activation(map_, box))


def activation(map_: np.ndarray, box: Box) -> float:
    """Sum of the map inside a box, by the square root of the box's area."""
    left, top, width, height = box
    # As published: the sides are cut to whole pixels after they are added, and the area is of the box as it is given.
    inside = map_[max(int(top), 0) : int(top + height), max(int(left), 0) : int(left + width)]
    return float(inside.sum()) / (width * height) ** 0.5 if width * height > 0 else 0.0


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0–1."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)
