"""Scores of pictures against texts: contrast for all pairs, matching for the best candidates (paper §5)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from albef.engine import Engine, Picture

IMAGES_AT_ONCE, TEXTS_AT_ONCE = 32, 256
MEMORY_BYTES = 256 * 2**20  # of the keys and values that are copied for the pairs of one pass
MAX_PAIRS = 1024


def similarities(engine: Engine, images: Sequence[Picture], texts: Sequence[str]) -> np.ndarray:
    """Cosine of every picture's and every text's feature, float32 [N_i, N_t]: the ITC score."""
    cosines: np.ndarray = engine.encode_images(images) @ engine.encode_texts(texts).T
    return cosines


def match_scores(
    engine: Engine, images: Sequence[Picture], texts: Sequence[str], pairs: np.ndarray
) -> np.ndarray:
    """Matching log-odds of `pairs` [P, 2], which are numbers of a picture and a text; float32 [P].

    The log-odds, logit of "match" minus that of "no match", rank as the probability does and add up with
    similarities; the published score is the logit of "match" alone. Each picture in `pairs` is encoded once,
    its keys and values are computed once, and those of `IMAGES_AT_ONCE` pictures are held at a time.
    """
    scores = np.empty(len(pairs), dtype=np.float32)
    if not len(pairs):
        return scores
    ids, mask = engine.text_tokens(texts)
    with torch.inference_mode():
        parts = zip(torch.split(ids, TEXTS_AT_ONCE), torch.split(mask, TEXTS_AT_ONCE), strict=True)
        tokens = torch.cat([engine.model.encode_text(*part).tokens for part in parts])
    lengths = mask.sum(1).cpu().numpy()

    shown, image_row = np.unique(pairs[:, 0], return_inverse=True)
    # Within a picture's group texts of like lengths are neighbours, so that little is padded.
    order = np.lexsort((lengths[pairs[:, 1]], image_row // IMAGES_AT_ONCE))
    batches = engine.image_encodings([images[number] for number in shown], IMAGES_AT_ONCE)
    num_batches = -(-len(shown) // IMAGES_AT_ONCE)
    starts = np.searchsorted(image_row[order] // IMAGES_AT_ONCE, np.arange(num_batches + 1))
    at_once = pairs_at_once(engine)
    for number, encoding in enumerate(engine.track(batches, "matching", num_batches)):
        with torch.inference_mode():
            memory = engine.model.image_memory(encoding)
        for start in range(starts[number], starts[number + 1], at_once):
            chosen = order[start : min(start + at_once, starts[number + 1])]
            text_row = torch.from_numpy(pairs[chosen, 1]).to(engine.device)
            within = torch.from_numpy(image_row[chosen] - number * IMAGES_AT_ONCE).to(engine.device)
            longest = int(lengths[pairs[chosen, 1]].max())
            scores[chosen] = engine.match_logits(
                tokens[text_row, :longest], mask[text_row, :longest], memory, within
            )
    return scores


def pairs_at_once(engine: Engine) -> int:
    """How many pairs to match in one pass, so that their keys and values stay within `MEMORY_BYTES`."""
    config = engine.config
    bytes_of_pair = (config.grid**2 + 1) * 2 * config.text_width * 4 * config.fusion_depth
    return max(1, min(MAX_PAIRS, MEMORY_BYTES // bytes_of_pair))


def rerank(
    engine: Engine,
    images: Sequence[Picture],
    texts: Sequence[str],
    similarity: np.ndarray,
    top_k: int,
    unscored: float = -np.inf,
) -> tuple[np.ndarray, np.ndarray]:
    """Matching log-odds of each query's `top_k` most similar candidates, and `unscored` elsewhere.

    For both directions, out of `similarity` [N_i, N_t]: float32 [N_i, N_t] with candidates of each picture,
    and [N_t, N_i] with candidates of each text. A pair that is a candidate in both is scored once. The
    published `unscored` is -100.
    """
    for_images, for_texts = candidates(similarity, top_k), candidates(similarity.T, top_k)
    pairs = np.argwhere(for_images | for_texts.T)
    nothing = np.float32(unscored)
    scores = np.full(similarity.shape, nothing)
    scores[pairs[:, 0], pairs[:, 1]] = match_scores(engine, images, texts, pairs)
    return np.where(for_images, scores, nothing), np.where(for_texts, scores.T, nothing)


def candidates(similarity: np.ndarray, top_k: int) -> np.ndarray:
    """True for the `top_k` highest of each row (all of them in a shorter row), bool [Q, N]."""
    chosen = np.zeros(similarity.shape, dtype=bool)
    np.put_along_axis(chosen, np.argsort(-similarity, axis=1, kind="stable")[:, :top_k], True, axis=1)
    return chosen


def combine(similarity: np.ndarray, match: np.ndarray, temperature: float) -> np.ndarray:
    """ITC and ITM as one score: similarity / temperature + matching log-odds; -inf stays -inf."""
    both: np.ndarray = similarity / temperature + match
    return both


def in_order(scores: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """`scores` [Q, N] with each row's -inf replaced: below all candidates, in the order of the similarity."""
    absent = np.isneginf(scores)
    lowest = np.min(scores, axis=1, keepdims=True, where=~absent, initial=0.0).astype(np.float64)
    below = lowest - 1 + (similarity - similarity.max(axis=1, keepdims=True))
    return np.where(absent, below, scores)
