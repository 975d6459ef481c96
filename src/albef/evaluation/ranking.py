"""Scores of images against texts: ITC for all pairs, ITM for the best candidates (paper §5)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Float32, Int
from torch import Tensor

from albef import distributed
from albef.data.images import BadImage, ImageInput
from albef.engine import IMAGES_AT_ONCE, TEXTS_AT_ONCE, Engine, log_odds
from albef.evaluation.metrics import ranks
from albef.evaluation.stored_texts import StoredTexts, stored_texts
from albef.model import kernels
from albef.progress import say
from albef.ranker import best_first, combined, others_last
from albef.systems import SYSTEMS

BLOCK_BYTES = 8 * 2**20  # of the similarities of some queries with all candidates


class AtOnce(NamedTuple):
    """What is matched in one pass: so many pairs of one image, or (`shared`) of several that have few."""

    images: int  # whose tokens are held
    pairs: int
    shared: bool


# On a CPU, images alone need no copy of their keys and values; a GPU has nothing to do while few pairs are prepared.
ON_CPU, ON_GPU = AtOnce(8, 128, shared=False), AtOnce(32, 1024, shared=True)

Features = Float32[np.ndarray, "rows width"]
Truth = Sequence[int | Sequence[int]]


def similarities(engine: Engine, images: Sequence[ImageInput], texts: Sequence[str]) -> np.ndarray:
    """The ITC score of all pairs, float32 [N_i, N_t]: the cosine of their features."""
    cosines: np.ndarray = engine.encode_images(images) @ engine.text_features(texts).T
    return cosines


def features_of_images(
    engine: Engine, images: Sequence[ImageInput], bad: dict[int, BadImage] | None = None
) -> Features:
    """Like `Engine.encode_images`, but several processes share the work, and each gets all features."""
    own = distributed.share(len(images), IMAGES_AT_ONCE)

    def encoded() -> tuple[Features, dict[int, BadImage]]:
        missing: dict[int, BadImage] | None = None if bad is None else {}
        features = engine.encode_images(images[own.start : own.stop], bad=missing)
        return features, {own.start + number: error for number, error in (missing or {}).items()}

    parts = distributed.from_each(encoded)
    if bad is not None:
        bad.update(item for _, missing in parts for item in missing.items())
    return np.concatenate([features for features, _ in parts])


def features_of_texts(engine: Engine, texts: Sequence[str]) -> Features:
    """Like `Engine.text_features`, but several processes share the work, and each gets all features."""
    own = distributed.share(len(texts), TEXTS_AT_ONCE)
    return np.concatenate(distributed.from_each(lambda: engine.text_features(texts[own.start : own.stop])))


def match_scores(
    engine: Engine, images: Sequence[ImageInput], texts: Sequence[str], pairs: np.ndarray
) -> np.ndarray:
    """Matching log-odds of `pairs` [P, 2] (number of an image, number of a text), float32 [P].

    The log-odds, logit of "match" minus that of "no match", rank as the probability does and add up with
    similarities; the published score is the logit of "match" alone. Each image and each text in `pairs` is encoded
    once. Pairs are grouped by image, whose keys and values are computed once and shared by all its texts; on a CPU,
    what is held beside the model does not grow with the gallery. Several processes share the images (the texts are
    encoded by each, which costs little beside the pairs), and each gets all scores.
    """
    scores = np.zeros(len(pairs), dtype=np.float32)
    if not len(pairs):
        return scores
    shown, image_row = np.unique(pairs[:, 0], return_inverse=True)
    said, text_row = np.unique(pairs[:, 1], return_inverse=True)
    at_once = at_once_on(engine.device)
    own = distributed.share(len(shown), at_once.images)
    encodings = engine.image_encodings([images[shown[row]] for row in own], at_once.images)
    waiting: deque[tuple[np.ndarray, Tensor]] = deque()  # fetched when the next pass is under way

    def fetch() -> None:
        chosen, odds = waiting.popleft()
        scores[chosen] = odds.cpu().numpy()

    with stored_texts(engine, [texts[number] for number in said]) as stored:
        # Texts of like lengths are neighbours, so that little is padded.
        order = np.lexsort((stored.lengths[text_row], image_row))
        groups = np.split(order, np.bincount(image_row).cumsum()[:-1])[own.start : own.stop]
        tokens = int(stored.lengths.mean() * min(at_once.pairs, len(pairs) / len(shown)))
        model = kernels.ready(engine.model, "fusion_encoder", tokens, engine.bf16)
        starts = range(0, len(groups), at_once.images)
        planned = [list(passes(groups[start : start + at_once.images], at_once)) for start in starts]
        each = ((encoding, *one) for encoding, some in zip(encodings, planned, strict=True) for one in some)
        for encoding, rows, index, group in engine.track(each, "matching", sum(map(len, planned))):
            memory = engine.image_memory(encoding, rows)
            image_index = None if index is None else engine.here(torch.from_numpy(index))
            for start in range(0, len(group), at_once.pairs):
                chosen = group[start : start + at_once.pairs]
                states, mask = stored.read(text_row[chosen])
                with engine.computing():
                    waiting.append((chosen, log_odds(model.finish_match(states, mask, memory, image_index))))
                if len(waiting) > 1:
                    fetch()
    while waiting:
        fetch()
    all_scores: np.ndarray = distributed.all_sum(torch.from_numpy(scores)).numpy()  # 0 where another's is
    return all_scores


def match_all(
    engine: Engine, images: Sequence[ImageInput], texts: Sequence[str], bad: dict[int, BadImage] | None = None
) -> Float32[np.ndarray, "images texts"]:
    """Matching log-odds of every image with every text: for models that compare no features.

    Each image and each text is encoded once. Several processes share the images, and each gets all scores. Images that
    cannot be read are noted in `bad`, and get no row.
    """
    own = distributed.share(len(images))
    if distributed.rank() == 0:
        tell_passes(engine, len(images), len(texts))

    def matched() -> tuple[np.ndarray, dict[int, BadImage]]:
        missing: dict[int, BadImage] | None = None if bad is None else {}
        with stored_texts(engine, texts) as stored:
            rows = list(rows_of(engine, images[own.start : own.stop], stored, missing))
        scores = np.stack(rows) if rows else np.zeros((0, len(texts)), np.float32)
        return scores, {own.start + number: error for number, error in (missing or {}).items()}

    parts = distributed.from_each(matched)
    if bad is not None:
        bad.update(item for _, missing in parts for item in missing.items())
    return np.concatenate([scores for scores, _ in parts])


def rows_of(
    engine: Engine, images: Sequence[ImageInput], texts: StoredTexts, bad: dict[int, BadImage] | None
) -> Iterator[Float32[np.ndarray, " texts"]]:
    """Log-odds of each image with all texts."""
    at_once, count = at_once_on(engine.device), len(texts.lengths)
    # Texts of like lengths are matched together, so that little is padded.
    blocks = np.array_split(np.argsort(texts.lengths, kind="stable"), max(1, -(-count // at_once.pairs)))
    model = kernels.ready(
        engine.model, "fusion_encoder", int(texts.lengths.sum()) // len(blocks), engine.bf16
    )
    encodings = engine.image_encodings(images, at_once.images, bad)
    for encoding in engine.track(encodings, "matching", -(-len(images) // at_once.images)):
        for row in range(len(encoding.tokens)):
            memory, odds = engine.image_memory(encoding, slice(row, row + 1)), np.zeros(count, np.float32)
            for block in blocks:
                states, mask = texts.read(block)
                with engine.computing():
                    odds[block] = log_odds(model.finish_match(states, mask, memory)).cpu().numpy()
            yield odds


def tell_passes(engine: Engine, images: int, texts: int) -> None:
    """Says how much matching all pairs costs, before it begins."""
    if not engine.quiet:
        title = SYSTEMS[engine.config.system].title
        say(
            f"{title} compares no features, so each of {images:,} images is matched with each of {texts:,} texts: "
            f"{images * texts:,} passes. A smaller gallery costs less: --gallery, or evaluate.gallery in a recipe."
        )


def at_once_on(device: torch.device) -> AtOnce:
    """What is matched in one pass on a device."""
    return ON_CPU if device.type == "cpu" else ON_GPU


def passes(
    groups: Sequence[Int[np.ndarray, " pairs"]], at_once: AtOnce
) -> Iterator[tuple[slice, Int[np.ndarray, " pairs"] | None, Int[np.ndarray, " pairs"]]]:
    """Which images are matched together, the image of each pair among them (None: there is one), and the pairs.

    `groups` are the pairs of each image.
    """
    start = 0
    while start < len(groups):
        stop, total = start + 1, len(groups[start])
        while at_once.shared and stop < len(groups) and total + len(groups[stop]) <= at_once.pairs:
            stop, total = stop + 1, total + len(groups[stop])
        some = groups[start:stop]
        index = np.repeat(np.arange(len(some)), [len(group) for group in some]) if len(some) > 1 else None
        yield slice(start, stop), index, np.concatenate(some)
        start = stop


@dataclass(frozen=True)
class Gallery:
    """Queries and candidates with their features. Similarities are computed for some queries at a time."""

    queries: Features
    candidates: Features

    def blocks(self) -> Iterator[tuple[slice, Float32[np.ndarray, "block candidates"]]]:
        """Blocks of queries, with their similarities to all candidates."""
        rows = max(1, BLOCK_BYTES // (4 * max(1, len(self.candidates))))
        for start in range(0, len(self.queries), rows):
            block = slice(start, min(start + rows, len(self.queries)))
            yield block, self.queries[block] @ self.candidates.T

    def best(self, top_k: int) -> Int[np.ndarray, "queries k"]:
        """Columns of each query's `top_k` most similar candidates, in ascending order."""
        columns = min(top_k, len(self.candidates))
        found = [np.zeros((0, columns), np.int32)]
        for _, similarity in self.blocks():
            chosen = np.nonzero(candidates(similarity, top_k))[1]
            found.append(chosen.astype(np.int32).reshape(len(similarity), columns))
        return np.concatenate(found)


@dataclass(frozen=True)
class Reranked:
    """The most similar candidates of each query, and their matching log-odds."""

    columns: Int[np.ndarray, "queries k"]
    match: Float32[np.ndarray, "queries k"]

    def rows(
        self, block: slice, num_candidates: int, unscored: float = -np.inf
    ) -> Float32[np.ndarray, "block candidates"]:
        """Log-odds of some queries with every candidate. `unscored` (published: -100) for pairs without a score."""
        columns = self.columns[block]
        scores = np.full((len(columns), num_candidates), unscored, dtype=np.float32)
        np.put_along_axis(scores, columns, self.match[block], axis=1)
        return scores


def rerank(
    engine: Engine,
    images: Sequence[ImageInput],
    texts: Sequence[str],
    image_features: Features,
    text_features: Features,
    top_k: int,
) -> tuple[Reranked, Reranked]:
    """ITM for each query's `top_k` most similar candidates, in both directions.

    A pair that is a candidate in both directions is scored once. Only candidates are stored: with 5,000 images and
    25,000 captions they are a hundredth of all pairs.
    """
    for_images = Gallery(image_features, text_features).best(top_k)
    for_texts = Gallery(text_features, image_features).best(top_k)
    # Each pair as one number, to sort and find pairs.
    count = len(texts)
    by_image = np.arange(len(for_images))[:, None] * count + for_images
    by_text = for_texts.astype(np.int64) * count + np.arange(len(for_texts))[:, None]
    pairs = np.unique(np.concatenate([by_image, by_text], axis=None))
    scores = match_scores(engine, images, texts, np.stack(np.divmod(pairs, count), axis=1))
    return (
        Reranked(for_images, scores[np.searchsorted(pairs, by_image)]),
        Reranked(for_texts, scores[np.searchsorted(pairs, by_text)]),
    )


class Ranked(Protocol):
    """Queries and candidates, with the scores that order them."""

    def found_at(self, truth: Truth) -> dict[str, Int[np.ndarray, " queries"]]:
        """The rank of each query's best correct candidate, by every score. Queries without one are left out."""


@dataclass(frozen=True)
class Matched:
    """Queries and candidates of which every pair was matched."""

    match: Float32[np.ndarray, "queries candidates"]

    def found_at(self, truth: Truth) -> dict[str, Int[np.ndarray, " queries"]]:
        """The rank of each query's best correct candidate, by the score "itm". Queries without one are left out."""
        asking = [row for row, columns in enumerate(truth) if columns != []]
        return {"itm": ranks(self.match[asking], [truth[row] for row in asking])}


@dataclass(frozen=True)
class Compared:
    """Queries and candidates whose features are compared, and the best of which may be re-ranked."""

    gallery: Gallery
    reranked: Reranked | None
    temperature: float

    def found_at(self, truth: Truth) -> dict[str, Int[np.ndarray, " queries"]]:
        """The rank of each query's best correct candidate (see `metrics.ranks`), by every score.

        The scores are "itc", and with re-ranked candidates also "itm" and "sum" (both added). Items that were not
        re-ranked follow in the order of ITC. Queries without a correct candidate are left out.
        """
        found: dict[str, list[np.ndarray]] = {}
        for block, similarity in self.gallery.blocks():
            by, correct = {"itc": similarity}, truth[block]
            asking = [row for row, columns in enumerate(correct) if columns != []]
            if self.reranked is not None:
                by["itm"] = self.reranked.rows(block, similarity.shape[1])
                by["sum"] = combined(similarity, by["itm"], self.temperature)
            for score, values in by.items():
                rank = ranks(others_last(values, similarity)[asking], [correct[row] for row in asking])
                found.setdefault(score, []).append(rank)
        return {score: np.concatenate(parts) for score, parts in found.items()}


def candidates(similarity: np.ndarray, top_k: int) -> np.ndarray:
    """True for the `top_k` highest values of each row, or for all if there are fewer, bool [Q, N]."""
    chosen = np.zeros(similarity.shape, dtype=bool)
    np.put_along_axis(chosen, best_first(similarity, top_k), True, axis=1)
    return chosen
