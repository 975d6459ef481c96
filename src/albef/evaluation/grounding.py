"""Grounding: whether the map of a phrase lies on the thing that it means (paper §5.5)."""

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
MAPPED_AT_ONCE = 16  # phrases, limited by the activations kept for the backward pass
PUBLISHED = "published"  # the published map of ITM at one fusion layer


@dataclass(frozen=True)
class Grounded:
    """Where the model finds a phrase, and where it is."""

    box: Box  # from the map itself
    true_box: Box
    chosen: Box | None  # of the proposals
    pointed: bool  # the map's highest point lies in the true box
    cluster: int  # see `cluster_of`

    @property
    def right(self) -> bool:
        """Whether the chosen proposal (or the map's own box, if there are none) agrees with the true box (IoU ≥ 0.5)."""
        return overlap(self.chosen or self.box, self.true_box) >= ENOUGH_OVERLAP


@dataclass(frozen=True)
class Answer:
    """Results for a record: for its phrase, and for the words of a caption that names several things."""

    phrase: dict[str, Grounded]  # by the map: a score, or `PUBLISHED`
    words: dict[str, list[float]]  # by the score: of each thing's word, see `on_its_own`
    cluster: int


def ground_all(
    engine: Engine, source: Source, layer: int | None, shuffled: bool, bad: dict[int, BadImage]
) -> Iterator[Answer]:
    """Each phrase grounded in its image by every map. For the blind control in another image."""
    if not engine.can_match:
        raise UserError(
            f"This model was trained for {engine.trained_for}, without ITM. Use a model with an ITM head."
        )
    for batch in shown(engine, source, shuffled, bad, obey_exif=False):  # boxes are of images as stored
        for start in range(0, len(batch.records), MAPPED_AT_ONCE):
            some = slice(start, start + MAPPED_AT_ONCE)
            records, pixels = batch.records[some], batch.visual[some]
            sizes = [size_of(record) for record in records]
            phrases = [record.captions[0] for record in records]
            maps = phrase_maps(engine, pixels, phrases)
            with engine.computing():
                maps[PUBLISHED] = pair_maps(engine.with_maps(), pixels, *engine.text_tokens(phrases), layer)
            named = words_on_their_own(engine, records, pixels, sizes)
            for row, (record, size, words) in enumerate(zip(records, sizes, named, strict=True)):
                phrase = {name: grounded(record, enlarged(ones[row], size)) for name, ones in maps.items()}
                yield Answer(phrase, words, cluster_of(record))


def size_of(record: Record) -> tuple[int, int]:
    """Width and height of the record's image. Raises `UserError` if its boxes cannot belong to it."""
    image = open_image(record.image, obey_exif=False, shrink=False)
    size = image.shape[1], image.shape[0]
    if record.box is None:
        raise UserError(
            f'{record.origin}: the key "box" is missing. Evaluation needs [left, top, width, height] in pixels '
            f"of the thing that the phrase means."
        )
    check_inside(record.box, size, f"{record.origin}: the box")
    for box in record.proposals:
        check_inside(box, size, f"{record.origin}: the proposed box")
    return size


def phrase_maps(
    engine: Engine, pixels: Float[Tensor, "phrases 3 height width"], phrases: Sequence[str]
) -> dict[str, Float[np.ndarray, "phrases grid grid"]]:
    """Maps of each phrase on its image, by both scores."""
    ids, mask = engine.text_tokens(phrases)
    no_words = torch.zeros(len(ids), 0, ids.shape[1], dtype=torch.bool, device=ids.device)
    with engine.computing():
        return {
            score: score_maps(engine.with_maps(), pixels, ids, mask, no_words, score).whole
            for score in SCORES
        }


def check_inside(box: Box, size: tuple[int, int], what: str) -> None:
    """Raises `UserError` for a box that reaches beyond an image of (width, height), since it belongs to another."""
    left, top, width, height = box
    beyond = max(-left, -top, left + width - size[0], top + height - size[1])
    if beyond > ROUNDING:
        raise UserError(
            f"{what} {list(box)} reaches {beyond:.0f} pixels beyond the image, which has {size[0]} × {size[1]}; "
            f"it belongs to another image, or to this one in another size. Correct it."
        )


def grounded(record: Record, map_: np.ndarray) -> Grounded:
    """The result of a map of the image's size, for a record with a box."""
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
    """Accuracies with intervals: "{name}/{map}_proposals", or "…_pointing" and "…_map_box" without proposals.

    The map is "itm" (of the matching log-odds), "itc" (of the similarity) or "published" (of ITM at fusion layer
    `layer`). A box is right with an intersection over union of 0.5 or more. "{name}/{score}_words" is how often a word's
    map is stronger on its own thing than on another thing of the caption (chance: 0.5).
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
    """The box with the highest sum of the map / √area (docs/published.md). Of equal boxes the first."""
    return max(proposals, key=lambda box: activation(map_, box))


def activation(map_: np.ndarray, box: Box) -> float:
    """Sum of the map inside a box, divided by the square root of the box's area."""
    left, top, width, height = box
    # As published: right and bottom are cut to whole pixels after adding, and the area is that of the given box.
    inside = map_[max(int(top), 0) : int(top + height), max(int(left), 0) : int(left + width)]
    return float(inside.sum()) / (width * height) ** 0.5 if width * height > 0 else 0.0


def overlap(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0–1."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(width, 0.0) * max(height, 0.0)
    return common / (a[2] * a[3] + b[2] * b[3] - common)
