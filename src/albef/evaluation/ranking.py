"""Scores of images against texts: contrast for all pairs, matching for the best candidates (paper §5)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile, gettempdir

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor

from albef import distributed
from albef.data.images import BadImage, ImageInput
from albef.disk import told
from albef.engine import IMAGES_AT_ONCE, TEXTS_AT_ONCE, Engine, log_odds
from albef.evaluation.metrics import ranks
from albef.model import kernels
from albef.ranker import best_first, combined, others_last
from albef.writing import write_all

MATCHED_IMAGES_AT_ONCE, PAIRS_AT_ONCE = 8, 128
BLOCK_BYTES = 8 * 2**20  # of the similarities of some queries with all candidates

Features = Float32[np.ndarray, "rows width"]
Truth = Sequence[int | Sequence[int]]


def similarities(engine: Engine, images: Sequence[ImageInput], texts: Sequence[str]) -> np.ndarray:
    """Cosine of every image's and every text's feature, float32 [N_i, N_t]: the ITC score."""
    cosines: np.ndarray = engine.encode_images(images) @ engine.encode_texts(texts).T
    return cosines


def features_of_images(
    engine: Engine, images: Sequence[ImageInput], bad: dict[int, BadImage] | None = None
) -> Features:
    """As `Engine.encode_images`; several processes share the images, and each gets the features of all."""
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
    """As `Engine.encode_texts`; several processes share the texts, and each gets the features of all."""
    own = distributed.share(len(texts), TEXTS_AT_ONCE)
    return np.concatenate(distributed.from_each(lambda: engine.encode_texts(texts[own.start : own.stop])))


class StoredTexts:
    """The texts' states before they see an image, in a file: those of 25,000 captions would fill a gigabyte."""

    def __init__(self, engine: Engine, texts: Sequence[str], file: FileIO) -> None:
        self.file, lengths = file, []
        for encoding in engine.text_encodings(texts):
            assert encoding.mask is not None
            with engine.computing():
                begun = engine.model.begin_match(encoding.tokens, encoding.mask)
            states = begun[encoding.mask].cpu()
            states = states.bfloat16() if engine.bf16 else states
            self.width, self.dtype = states.shape[1], states.dtype
            with told(f"{gettempdir()}, where temporary files are (see TMPDIR)", Path(gettempdir())):
                write_all(self.file, as_bytes(states).reshape(-1).data)
            lengths.append(encoding.mask.sum(1).cpu().numpy())
        self.lengths = np.concatenate(lengths)
        self.starts = self.lengths.cumsum() - self.lengths

    def read(
        self, rows: Int[np.ndarray, " texts"]
    ) -> tuple[Float[Tensor, "texts length width"], Bool[Tensor, "texts length"]]:
        """Padded states of these texts, and which are real; on the CPU."""
        lengths = torch.from_numpy(self.lengths[rows])
        states = torch.zeros(len(rows), int(lengths.max()), self.width, dtype=self.dtype)
        token_bytes = self.width * states.element_size()
        for row, into in zip(rows, as_bytes(states), strict=True):
            wanted = into.reshape(-1)[: self.lengths[row] * token_bytes]
            read = os.preadv(self.file.fileno(), [wanted.data], int(self.starts[row]) * token_bytes)
            assert read == len(wanted)
        return states, torch.arange(states.shape[1]) < lengths[:, None]


def as_bytes(tensor: Tensor) -> np.ndarray:
    """The same memory as bytes, which NumPy has for every precision."""
    return tensor.contiguous().view(torch.uint8).numpy()


def match_scores(
    engine: Engine, images: Sequence[ImageInput], texts: Sequence[str], pairs: np.ndarray
) -> np.ndarray:
    """Matching log-odds of `pairs` [P, 2], which are numbers of an image and a text; float32 [P].

    The log-odds, logit of "match" minus that of "no match", rank as the probability does and add up with
    similarities; the published score is the logit of "match" alone. Each image and each text in `pairs` is encoded
    once. Pairs are grouped by image, whose keys and values are computed once and shared by all its texts; what is
    held beside the model does not grow with the gallery. Several processes share the images (the texts are encoded
    by each, which costs little beside the pairs), and each gets all scores.
    """
    scores = np.zeros(len(pairs), dtype=np.float32)
    if not len(pairs):
        return scores
    shown, image_row = np.unique(pairs[:, 0], return_inverse=True)
    said, text_row = np.unique(pairs[:, 1], return_inverse=True)
    own = distributed.share(len(shown), MATCHED_IMAGES_AT_ONCE)
    encodings = engine.image_encodings([images[shown[row]] for row in own], MATCHED_IMAGES_AT_ONCE)
    memories = (memory for encoding in encodings for memory in engine.image_memories(encoding))
    with TemporaryFile(buffering=0) as file:
        stored = StoredTexts(engine, [texts[number] for number in said], file)
        # Texts of like lengths are neighbours, so that little is padded.
        order = np.lexsort((stored.lengths[text_row], image_row))
        groups = np.split(order, np.bincount(image_row).cumsum()[:-1])[own.start : own.stop]
        tokens = int(stored.lengths.mean() * min(PAIRS_AT_ONCE, len(pairs) / len(shown)))
        model = kernels.ready(engine.model, "fusion_encoder", tokens, engine.bf16)
        for memory, group in zip(engine.track(memories, "matching", len(own)), groups, strict=True):
            for start in range(0, len(group), PAIRS_AT_ONCE):
                chosen = group[start : start + PAIRS_AT_ONCE]
                states, mask = (part.to(engine.device) for part in stored.read(text_row[chosen]))
                with engine.computing():
                    scores[chosen] = log_odds(model.finish_match(states, mask, memory))
    all_scores: np.ndarray = distributed.all_sum(torch.from_numpy(scores)).numpy()  # 0 where another's is
    return all_scores


@dataclass(frozen=True)
class Gallery:
    """Queries and what they are to find, by their features; similarities are computed for some queries at a time."""

    queries: Features
    candidates: Features

    def blocks(self) -> Iterator[tuple[slice, Float32[np.ndarray, "block candidates"]]]:
        """Some queries after the other, and their similarity to every candidate."""
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
        """Log-odds of some queries with every candidate; `unscored` (published: -100) where there are none."""
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
    """Matching of each query's `top_k` most similar candidates: of each image's, and of each text's.

    A pair that is a candidate in both directions is scored once. Only the candidates are kept, which at the size of
    5,000 images and 25,000 captions is a hundredth of all pairs.
    """
    for_images = Gallery(image_features, text_features).best(top_k)
    for_texts = Gallery(text_features, image_features).best(top_k)
    # A pair as one number, so that pairs can be sorted, and found again.
    count = len(texts)
    by_image = np.arange(len(for_images))[:, None] * count + for_images
    by_text = for_texts.astype(np.int64) * count + np.arange(len(for_texts))[:, None]
    pairs = np.unique(np.concatenate([by_image, by_text], axis=None))
    scores = match_scores(engine, images, texts, np.stack(np.divmod(pairs, count), axis=1))
    return (
        Reranked(for_images, scores[np.searchsorted(pairs, by_image)]),
        Reranked(for_texts, scores[np.searchsorted(pairs, by_text)]),
    )


def found_at(
    gallery: Gallery, truth: Truth, reranked: Reranked | None, temperature: float
) -> dict[str, Int[np.ndarray, " queries"]]:
    """The rank of each query's best correct candidate (see `metrics.ranks`) by every score that there is.

    "itc", contrast; with re-ranked candidates also "itm", matching, and "sum", both added, where what is no candidate
    follows in the order of contrast. Queries for which nothing is correct are left out.
    """
    found: dict[str, list[np.ndarray]] = {}
    for block, similarity in gallery.blocks():
        by, correct = {"itc": similarity}, truth[block]
        asking = [row for row, columns in enumerate(correct) if columns != []]
        if reranked is not None:
            by["itm"] = reranked.rows(block, similarity.shape[1])
            by["sum"] = combined(similarity, by["itm"], temperature)
        for score, values in by.items():
            rank = ranks(others_last(values, similarity)[asking], [correct[row] for row in asking])
            found.setdefault(score, []).append(rank)
    return {score: np.concatenate(parts) for score, parts in found.items()}


def candidates(similarity: np.ndarray, top_k: int) -> np.ndarray:
    """True for the `top_k` highest of each row (all of them in a shorter row), bool [Q, N]."""
    chosen = np.zeros(similarity.shape, dtype=bool)
    np.put_along_axis(chosen, best_first(similarity, top_k), True, axis=1)
    return chosen
