"""Re-ranks what the model of an index found with a second model, which reads the text with each image."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from albef.config import UserError
from albef.data.images import BadImage
from albef.disk import size
from albef.engine import IMAGES_AT_ONCE, Engine
from albef.errors import Caution
from albef.ranker import Hit, hits_of
from albef.search.index import counted
from albef.search.kept import Kept, KeptEncodings


def check_reranker(engine: Engine, query: str | Path) -> None:
    """Raises `UserError` for a model that cannot re-rank, and for a query that is no text."""
    if not (engine.can_match and engine.can_contrast):
        raise UserError(
            f"{engine.name or 'The second model'}: was trained for {engine.trained_for}, but re-ranking needs ITC and "
            f"ITM. Name an ALBEF model of task pretrain or retrieval."
        )
    if isinstance(query, Path):
        raise UserError(
            "Re-ranking reads a text, but the query is an image: leave the second model (--rerank-with) out, or search "
            "with a text."
        )


def reranked(
    hits: Sequence[Hit],
    kept: KeptEncodings,
    text: str,
    batch_size: int | None = None,
    say: Callable[[str], None] | None = None,
) -> list[Hit]:
    """The hits of an index in the order of a second model, whose scores they get.

    `score` is the second model's similarity / temperature plus its log-odds of a match, as in `Engine.rank`.
    `index_similarity` is the similarity by which the hit was found. `say` gets a sentence about the cost before the
    work. Images that cannot be read any more come last, in their old order, with a score of -inf and a similarity of
    nan. Warns about them, and if encodings cannot be kept. `batch_size` images are read at once.
    """
    engine, images = kept.engine, [hit.path for hit in hits if hit.path is not None]
    engine.prepare.check_says_something(text, f"query for {engine.name or 'the second model'}")
    cost = cost_of(kept, images)
    if say:
        say(cost)
    (query,) = engine.text_encodings([text])
    feature = query.feature[0].float().cpu().numpy()
    similarity, match = np.zeros((2, len(images)), np.float32)
    bad: dict[int, BadImage] = {}
    at_once = min(batch_size or engine.pairs_at_once, IMAGES_AT_ONCE)
    starts = range(0, len(images), at_once)
    for start in engine.track(starts, "re-ranking", len(starts)):
        found = kept.encodings(images[start : start + at_once])
        bad |= {start + place: one for place, one in enumerate(found) if isinstance(one, BadImage)}
        rows = [start + place for place, one in enumerate(found) if isinstance(one, Kept)]
        if rows:
            encodings = [one for one in found if isinstance(one, Kept)]
            similarity[rows] = np.stack([one.feature for one in encodings]) @ feature
            tokens = np.stack([one.tokens for one in encodings]).astype(np.float32)
            match[rows] = engine.match_images(query, engine.kept_images(torch.from_numpy(tokens)))
    warn(kept, bad, len(images))
    read = np.array([number for number in range(len(images)) if number not in bad], int)
    ranked = hits_of(similarity, read, match[read], engine.temperature, len(images))
    ranked += [Hit(number, -math.inf, math.nan) for number in bad]
    return [
        one._replace(
            number=hits[one.number].number,
            path=hits[one.number].path,
            index_similarity=hits[one.number].similarity,
        )
        for one in ranked
    ]


def cost_of(kept: KeptEncodings, images: Sequence[Path]) -> str:
    """What re-ranking these images will cost, as a sentence. Looks whether there is room for those that are new."""
    files = [file for image in images if (file := kept.file_of(image)) is not None]
    new = sum(not kept.holds(file) for file in files)
    kept.check_room(new)
    first = f", {new:,} of them for the first time" if new else ""
    return (
        f"Re-ranking reads {counted(len(files), 'image')} with {kept.engine.name or 'the second model'}{first}. "
        f"An image takes {size(kept.bytes_each)} and is kept in {kept.folder}."
    )


def warn(kept: KeptEncodings, bad: Mapping[int, BadImage], total: int) -> None:
    """Warns about images that could not be read, and about encodings that could not be kept."""
    if bad:
        come = "comes" if len(bad) == 1 else "come"
        warnings.warn(
            f"{len(bad):,} of {counted(total, 'image')} cannot be read any more and {come} last, such as "
            f"{next(iter(bad.values()))}",
            Caution,
            stacklevel=4,
        )
    if kept.why_not:
        warnings.warn(
            f"Nothing is kept of these images, so that the next search reads them anew: {kept.why_not}",
            Caution,
            stacklevel=4,
        )
