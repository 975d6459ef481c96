"""Measures a model for images and texts: recall and foil accuracy by ITC, by ITM and by their sum."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int

from albef.config import UserError
from albef.data.images import BadImage, ImageInput
from albef.data.sources import Source
from albef.engine import Engine
from albef.evaluation.metrics import interval, preferences
from albef.evaluation.ranking import (
    Compared,
    Features,
    Gallery,
    Matched,
    Ranked,
    features_of_images,
    features_of_texts,
    match_all,
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
    engine: Engine,
    splits: Iterable[str],
    seed: int,
    count: int,
    num_nouns: int,
    top_k: int,
    most: int = 0,
) -> Iterator[Metric]:
    """Figures such as "test/itm/t2i_r1" with values 0–1, for a gallery of each split, drawn from `seed`.

    `most` of its `count` images are taken, the first ones (0: all).

    Recall counts a caption's own scene alone as right, since the caption is true of no other. Foil accuracy is how often
    the caption beats its foil (chance 0.5). "…_low" and "…_high" are the ends of the 95 % interval.
    """
    # Imported here: users of their own data need not load the drawings.
    from albef.data.pictograms.gallery import foils, gallery

    for split in splits:
        drawn = gallery(split, seed, count, num_nouns, engine.config.image_size)
        images, captions = list(drawn.images)[: most or None], drawn.captions[: most or None]
        false = [foil for foil in foils(drawn, seed) if foil.index < len(images)]
        texts = [*captions, *(foil.caption for foil in false)]
        features = None
        if engine.can_contrast:
            features = features_of_images(engine, images), features_of_texts(engine, texts)
        own = list(range(len(images)))
        ways = both_ways(engine, images, captions, features, top_k)
        yield from recalls(split, ways, [[number] for number in own], own, seed)

        shown = np.array([foil.index for foil in false], dtype=np.int64)
        foil_pairs = np.stack([shown, len(captions) + np.arange(len(false))], axis=1)
        pairs = np.concatenate([np.stack([own, own], axis=1), foil_pairs])
        for score, values in pair_scores(engine, images, texts, features, pairs).items():
            preferred = preferences(values[shown], values[len(captions) :])
            for kind in FOILS:
                chosen = np.array([foil.kind == kind for foil in false], dtype=bool)
                if chosen.any():
                    yield from with_interval(
                        f"{split}/{score}/foil_{kind}", preferred[chosen], shown[chosen], seed
                    )


def pair_scores(
    engine: Engine,
    images: Sequence[ImageInput],
    texts: Sequence[str],
    features: tuple[Features, Features] | None,
    pairs: Int[np.ndarray, "pairs 2"],
) -> dict[str, Float32[np.ndarray, " pairs"]]:
    """Every score of pairs (image, text). `features` are those of images and texts, None if none are compared."""
    by: dict[str, np.ndarray] = {}
    if features is not None:
        by["itc"] = (features[0][pairs[:, 0]] * features[1][pairs[:, 1]]).sum(1)
    if engine.can_match:
        by["itm"] = match_scores(engine, images, texts, pairs)
    if len(by) == 2:
        by["sum"] = combined(by["itc"], by["itm"], engine.temperature)
    return by


def both_ways(
    engine: Engine,
    images: Sequence[ImageInput],
    texts: Sequence[str],
    features: tuple[Features, Features] | None,
    top_k: int,
) -> tuple[Ranked, Ranked]:
    """Texts ranked for each image, and images for each text. Without features, every pair is matched."""
    if features is None:
        match = match_all(engine, images, texts)
        return Matched(match), Matched(match.T)
    of_images, of_texts = features[0], features[1][: len(texts)]
    for_images, for_texts = None, None
    if engine.can_match:
        for_images, for_texts = rerank(engine, images, texts, of_images, of_texts, top_k)
    i2t = Compared(Gallery(of_images, of_texts), for_images, engine.temperature)
    return i2t, Compared(Gallery(of_texts, of_images), for_texts, engine.temperature)


def evaluate_pairs(
    engine: Engine, source: Source, top_k: int, name: str = "data", most: int = 0
) -> Iterator[Metric]:
    """Figures such as "data/itm/t2i_r1" with values 0–1, for the images and captions of a source.

    A caption belongs to its own image alone, though it may describe others. Rows with the same image id are one image.
    "data/pictures", "data/captions" and "data/skipped" (unreadable images) are counts. `most` images are taken (0: all).
    Raises `UserError` if nothing is left.
    """
    images, captions = images_and_captions(engine, source, most)
    everything = [text for texts in captions for text in texts]
    bad: dict[int, BadImage] = {}
    features, match = None, None
    if engine.can_contrast:
        features = features_of_images(engine, images, bad)
    elif everything:
        match = match_all(engine, images, everything, bad)
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
    if match is not None:
        readable = [number not in bad for number, texts in enumerate(captions) for _ in texts]
        i2t: Ranked = Matched(match[:, readable])
        t2i: Ranked = Matched(match[:, readable].T)
    else:
        assert features is not None
        both = features, features_of_texts(engine, texts)
        i2t, t2i = both_ways(engine, [images[number] for number in kept], texts, both, top_k)
    yield from recalls(name, (i2t, t2i), of_image, of_text, seed=0)


def images_and_captions(
    engine: Engine, source: Source, most: int
) -> tuple[list[ImageInput], list[list[str]]]:
    """The first `most` images (0: all) of a source, each once, and the captions of each that are not empty."""
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
    return images[: most or None], captions[: most or None]


def recalls(
    split: str,
    ways: tuple[Ranked, Ranked],
    of_image: Sequence[Sequence[int]],
    of_text: Sequence[int],
    seed: int,
) -> Iterator[Metric]:
    """R@1, R@5 and R@10 in both directions and their mean, by every score. `of_image` and `of_text` tell what is right.

    `ways` rank texts for images, and images for texts. Images without a text are candidates, but not queries.
    "{split}/blind" has the same figures with each image replaced by another one. They are about chance.
    """
    count = len(of_image)
    # Replacing images does not change the scores, only which row is right.
    moves = {split: 0, f"{split}/blind": count // 2} if count > 1 else {split: 0}
    for name, move in moves.items():
        moved = [(row + move) % count for row in of_text]
        own = [(row - move) % count for row in range(count)]  # whose texts are right for each image
        i2t = ways[0].found_at([of_image[row] for row in own])
        t2i = ways[1].found_at(moved)
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
