"""Measures a model for images and texts: recall and foil accuracy by ITC, by ITM and by their sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from albef.config import UserError
from albef.data.images import BadImage, ImageInput
from albef.data.sources import Source
from albef.engine import Engine
from albef.evaluation.metrics import interval, preferences
from albef.evaluation.ranking import (
    Features,
    Gallery,
    features_of_images,
    features_of_texts,
    found_at,
    match_scores,
    rerank,
)
from albef.ranker import combined
from albef.writing import write_json

SCORES = ("itc", "itm", "sum")  # ITC; ITM for the best by ITC; the sum of both
FOILS = ("noun", "count", "size", "background", "location", "relation")
RECALLS = (1, 5, 10)

Metric = tuple[str, float]


def evaluate_pictograms(
    engine: Engine, splits: Iterable[str], seed: int, count: int, num_nouns: int, top_k: int
) -> Iterator[Metric]:
    """Figures such as "test/itm/t2i_r1" with values 0–1, for a gallery of each split, drawn from `seed`.

    Recall counts a caption's own scene alone as right, since the caption is true of no other. Foil accuracy is how often
    the caption beats its foil (chance 0.5). "…_low" and "…_high" are the ends of the 95 % interval.
    """
    # Imported here: users of their own data need not load the drawings.
    from albef.data.pictograms.gallery import foils, gallery

    for split in splits:
        drawn = gallery(split, seed, count, num_nouns, engine.config.image_size)
        images, captions = list(drawn.images), drawn.captions
        false = foils(drawn, seed)
        texts = [*captions, *(foil.caption for foil in false)]
        of_images, of_texts = features_of_images(engine, images), features_of_texts(engine, texts)
        features = of_images, of_texts[: len(captions)]
        own = list(range(len(images)))
        each = [[number] for number in own]
        yield from recalls(engine, split, images, captions, features, each, own, top_k, seed)

        shown = np.array([foil.index for foil in false], dtype=np.int64)
        foil_pairs = np.stack([shown, len(captions) + np.arange(len(false))], axis=1)
        pairs = np.concatenate([np.stack([own, own], axis=1), foil_pairs])
        by = {"itc": (of_images[pairs[:, 0]] * of_texts[pairs[:, 1]]).sum(1)}
        if engine.can_match:
            by["itm"] = match_scores(engine, images, texts, pairs)
            by["sum"] = combined(by["itc"], by["itm"], engine.temperature)
        for score, values in by.items():
            preferred = preferences(values[shown], values[len(captions) :])
            for kind in FOILS:
                chosen = np.array([foil.kind == kind for foil in false], dtype=bool)
                if chosen.any():
                    yield from with_interval(
                        f"{split}/{score}/foil_{kind}", preferred[chosen], shown[chosen], seed
                    )


def evaluate_pairs(engine: Engine, source: Source, top_k: int, name: str = "data") -> Iterator[Metric]:
    """Figures such as "data/itm/t2i_r1" with values 0–1, for the images and captions of a source.

    A caption belongs to its own image alone, though it may describe others. Rows with the same image id are one image.
    "data/pictures", "data/captions" and "data/skipped" (unreadable images) are counts. Raises `UserError` if nothing is
    left.
    """
    images: list[ImageInput] = []
    captions: list[list[str]] = []
    number_of: dict[int, int] = {}
    for index in range(len(source)):
        record = source.record(index, 0)
        number = len(images)
        if record.image_id is not None:
            number = number_of.setdefault(record.image_id, number)
        if number == len(images):
            images.append(record.image)
            captions.append([])
        captions[number] += [c for c in record.captions if engine.prepare.words.clean(c)]
    bad: dict[int, BadImage] = {}
    image_features = features_of_images(engine, images, bad)
    kept = [number for number in range(len(images)) if number not in bad]
    texts = [text for number in kept for text in captions[number]]
    if not texts:
        reason = f" ({next(iter(bad.values()))})" if bad else ""
        raise UserError(f"No readable image with a caption is left to evaluate{reason}.")
    of_text = [row for row, number in enumerate(kept) for _ in captions[number]]
    of_image: list[list[int]] = [[] for _ in kept]
    for text, row in enumerate(of_text):
        of_image[row].append(text)
    yield f"{name}/pictures", float(len(kept))
    yield f"{name}/captions", float(len(texts))
    yield f"{name}/skipped", float(len(bad))
    features = image_features, features_of_texts(engine, texts)
    kept_images = [images[number] for number in kept]
    yield from recalls(engine, name, kept_images, texts, features, of_image, of_text, top_k, seed=0)


def recalls(
    engine: Engine,
    split: str,
    images: Sequence[ImageInput],
    texts: Sequence[str],
    features: tuple[Features, Features],
    of_image: Sequence[Sequence[int]],
    of_text: Sequence[int],
    top_k: int,
    seed: int,
) -> Iterator[Metric]:
    """R@1, R@5 and R@10 in both directions and their mean, by every score. `of_image` and `of_text` tell what is right.

    `features` are those of the images and of the texts. Images without a text are candidates, but not queries.
    "{split}/blind" has the same figures with each image replaced by another one. They are about chance.
    """
    of_images, of_texts = features
    for_images, for_texts = None, None
    if engine.can_match:
        for_images, for_texts = rerank(engine, images, texts, of_images, of_texts, top_k)
    # Replacing images does not change the scores, only which row is right.
    moves = {split: 0, f"{split}/blind": len(images) // 2} if len(images) > 1 else {split: 0}
    for name, move in moves.items():
        moved = [(row + move) % len(images) for row in of_text]
        own = [
            (row - move) % len(images) for row in range(len(images))
        ]  # whose texts are right for each image
        t2i = found_at(Gallery(of_texts, of_images), moved, for_texts, engine.temperature)
        i2t = found_at(
            Gallery(of_images, of_texts), [of_image[row] for row in own], for_images, engine.temperature
        )
        asking = [row for row in own if of_image[row]]
        for score in t2i:
            found = {"t2i": (t2i[score], of_text), "i2t": (i2t[score], asking)}
            yield from recall_metrics(f"{name}/{score}", found, seed)


def recall_metrics(
    name: str, found: Mapping[str, tuple[np.ndarray, Sequence[int]]], seed: int
) -> Iterator[Metric]:
    """R@1, R@5 and R@10 in each direction, and their mean "{name}/r_mean", with intervals.

    `found` has the ranks of each direction's queries, and the image of each query. Queries of one image form a cluster.
    """
    for direction, (rank, image) in found.items():
        for k in RECALLS:
            yield from with_interval(f"{name}/{direction}_r{k}", rank < k, image, seed)
    each = [(np.mean([rank < k for k in RECALLS], axis=0), image) for rank, image in found.values()]
    low, high = interval(*each, seed=seed)
    yield f"{name}/r_mean", float(np.mean([hits.mean() for hits, _ in each]))
    yield f"{name}/r_mean_low", low
    yield f"{name}/r_mean_high", high


def with_interval(
    name: str, values: np.ndarray, clusters: Sequence[int] | np.ndarray, seed: int = 0
) -> Iterator[Metric]:
    """The mean of the values and the ends of its 95 % interval. For clusters see `metrics.interval`."""
    low, high = interval((values, clusters), seed=seed)
    yield name, float(values.mean())
    yield f"{name}_low", low
    yield f"{name}_high", high


def write_metrics(path: Path, metrics: Mapping[str, float], facts: Mapping[str, str] | None = None) -> None:
    """Writes `metrics.json`, one flat object, whole or not at all. `facts` describe in words what was measured."""
    write_json(path, {**(facts or {}), **{name: float(value) for name, value in metrics.items()}})
