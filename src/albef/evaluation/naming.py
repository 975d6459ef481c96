"""Maps of single words: whether a word's map lies on its own thing, or on another thing of the caption."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from albef.data.records import Box, Record
from albef.engine import Engine
from albef.evaluation.metrics import preferences
from albef.model.maps import SCORES, enlarged, score_maps


def words_on_their_own(
    engine: Engine,
    records: Sequence[Record],
    pixels: Float[Tensor, "records 3 height width"],
    sizes: Sequence[tuple[int, int]],
) -> list[dict[str, list[float]]]:
    """By each score, `on_its_own` for each thing that a record's caption names. Empty without such a caption."""
    found: list[dict[str, list[float]]] = [{score: [] for score in SCORES} for _ in records]
    rows = [row for row, record in enumerate(records) if record.naming is not None]
    namings = [naming for record in records if (naming := record.naming) is not None]
    if not rows:
        return found
    ids, mask = engine.text_tokens([naming.caption for naming in namings])
    words = torch.zeros(len(rows), max(len(n.things) for n in namings), ids.shape[1], dtype=torch.bool)
    for number, naming in enumerate(namings):
        for thing, (name, _) in enumerate(naming.things):
            words[number, thing, places_of(engine, naming.caption, name)] = True
    for score in SCORES:
        with engine.computing():
            maps = score_maps(engine.with_maps(), pixels[rows], ids, mask, words.to(ids.device), score).words
        for row, naming, ones in zip(rows, namings, maps, strict=True):
            boxes = [box for _, box in naming.things]
            large = [enlarged(one, sizes[row]) for one in ones[: len(boxes)]]
            found[row][score] = [on_its_own(map_, boxes, thing) for thing, map_ in enumerate(large)]
    return found


def places_of(engine: Engine, caption: str, name: str) -> list[int]:
    """The positions of a thing's words among the tokens of a caption. Empty if the caption was cut before them."""
    said = engine.prepare.word_places(caption)
    name_words = [word for word, _ in engine.prepare.word_places(name)]
    for start in range(len(said) - len(name_words) + 1):
        part = said[start : start + len(name_words)]
        if [word for word, _ in part] == name_words:
            return [place for _, places in part for place in places]
    return []


def on_its_own(map_: np.ndarray, boxes: Sequence[Box], thing: int) -> float:
    """The share of other things on which a map is weaker than on this one, by its mean in their boxes."""
    own, others = mean_inside(map_, boxes[thing]), [box for n, box in enumerate(boxes) if n != thing]
    return float(np.mean(preferences(np.array(own), np.array([mean_inside(map_, box) for box in others]))))


def mean_inside(map_: np.ndarray, box: Box) -> float:
    """The mean of a map inside a box."""
    left, top, width, height = box
    return float(map_[round(top) : round(top + height), round(left) : round(left + width)].mean())
