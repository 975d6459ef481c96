"""Searches an index in two stages: ITC compares all images, then ITM reads the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.table import Table
from rich.text import Text

from albef.config import UserError
from albef.data.images import BadImage, open_image
from albef.engine import Engine
from albef.errors import printable
from albef.ranker import Hit, best_first, hits_of, probability
from albef.search.index import Index
from albef.search.kept import KeptEncodings
from albef.search.moved import Move, moved
from albef.search.reranking import check_reranker, reranked
from albef.writing import whole_file

# Sizes and colours of the contact sheet, in pixels and RGB.
TILE, GAP, COLUMNS, LINE, LETTER = 192, 16, 4, 20, 14
PAPER, INK, PALE = (250, 250, 248), (30, 30, 30), (225, 225, 222)


def search(
    index: Index,
    engine: Engine,
    query: str | Path,
    k: int = 12,
    rerank: int = 64,
    batch_size: int | None = None,
    reranker: Engine | None = None,
    say: Callable[[str], None] | None = None,
    moves: Sequence[Move] = (),
) -> list[Hit]:
    """The `k` best images for a text, or the most similar images for an image file, best first.

    All images are compared by their features. For a text, the best `rerank` of them (at least `k`; 0 = none) are then
    ordered by the sum of ITC and ITM, as in `Engine.rank`. ITM takes `batch_size` images in one pass (default: as many
    as fit into the engine's memory limit).

    With a `reranker`, a second model with ITC and ITM, these best are ordered by that model alone: see `reranked`. It
    encodes each image once and keeps that in the index's folder. `say` gets a sentence about the cost before the work.
    `moves` tell where images are now.

    Raises `UserError` if another model made the index, if the text says nothing, if the file is not an image, and for a
    `reranker` that cannot re-rank.
    """
    if reranker:
        check_reranker(reranker, query)
    if engine.fingerprint != index.weights:
        raise UserError(
            f"The index was made with other weights (of {index.model or 'a model in memory'}). "
            f"Load that model, or make the index again."
        )
    if isinstance(query, Path):
        feature = engine.encode_images([query])[0]
    else:
        engine.prepare.check_says_something(query, "query")
        feature = engine.encode_texts([query])[0]
    similarity = index.features @ feature
    best, match = best_first(similarity, max(rerank, k)), None
    if isinstance(query, str) and rerank and index.tokens is not None and engine.can_match and not reranker:
        match = match_rows(index.tokens, engine, query, best, batch_size or engine.pairs_at_once)
    hits = hits_of(similarity, best, match, engine.temperature, len(best) if reranker else k)
    hits = [hit._replace(path=moved(index.paths[hit.number], moves)) for hit in hits]
    if reranker and isinstance(query, str):
        hits = reranked(hits, KeptEncodings(index.folder, reranker), query, batch_size, say)[:k]
    return hits


def match_rows(
    tokens: np.ndarray, engine: Engine, text: str, rows: np.ndarray, batch_size: int
) -> np.ndarray:
    """Matching log-odds of one text with the indexed images in these rows, float32 [rows]."""
    (query,) = engine.text_encodings([text])
    found = []
    for start in range(0, len(rows), batch_size):
        stored = tokens[rows[start : start + batch_size]].astype(np.float32)
        found.append(engine.match_images(query, engine.kept_images(torch.from_numpy(stored))))
    return np.concatenate(found)


def hits_table(hits: Sequence[Hit]) -> Table:
    """A table of the hits: rank, score, similarity, probability of a match, and file. They are ordered by score.

    After re-ranking it also has the similarity in the index.
    """
    reranked = any(hit.index_similarity is not None for hit in hits)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for name in ("#", "score", "similarity", "match", *(["in index"] if reranked else [])):
        table.add_column(name, justify="right")
    table.add_column("image", overflow="fold")
    for rank, hit in enumerate(hits, 1):
        scores = [f"{hit.score:.2f}", f"{hit.similarity:.3f}"] if was_read(hit) else ["", ""]
        scores.append(percent(hit.match))
        if hit.index_similarity is not None:
            scores.append(f"{hit.index_similarity:.3f}")
        table.add_row(str(rank), *scores, Text(printable(str(hit.path))))
    return table


def was_read(hit: Hit) -> bool:
    """Whether a hit has scores: False for an image that a second model could not read."""
    return math.isfinite(hit.score)


def percent(log_odds: float | None) -> str:
    """The probability of a match as a text. Empty without ITM."""
    return "" if log_odds is None else f"{100 * chance(log_odds):.1f} %"


def chance(log_odds: float) -> float:
    """The probability of a match."""
    return float(probability(np.array(log_odds)))


def contact_sheet(hits: Sequence[Hit], out_png: Path, query: str | Path) -> None:
    """Writes a PNG of the hits in reading order, each with rank, scores and file name, below the query.

    A query image is shown above its hits. Images that no longer exist leave an empty frame.
    """
    sheet_columns = max(1, min(COLUMNS, len(hits)))
    lines = -(-len(hits) // sheet_columns)
    width = GAP + COLUMNS * (TILE + GAP)
    top = GAP + (TILE + GAP if isinstance(query, Path) else 0) + LINE + GAP
    tile_height = TILE + 2 * LINE + GAP
    sheet = Image.new("RGB", (width, top + max(lines, 1) * tile_height), PAPER)
    draw = ImageDraw.Draw(sheet)
    small, large = font(LETTER), font(LETTER + 4)
    title = query.name if isinstance(query, Path) else query
    if isinstance(query, Path):
        paste(sheet, query, GAP, GAP)
    draw.text((GAP, top - LINE - GAP), fitting(title, large, width - 2 * GAP), INK, large)
    for place, hit in enumerate(hits):
        assert hit.path is not None, "hits in an index have files"
        x = GAP + place % sheet_columns * (TILE + GAP)
        y = top + place // sheet_columns * tile_height
        paste(sheet, hit.path, x, y)
        match = f"   match {percent(hit.match)}" if hit.match is not None else ""
        score = f"{hit.score:.2f}{match}" if was_read(hit) else "cannot be read"
        draw.text((x, y + TILE + 4), f"{place + 1}.  {score}", INK, small)
        draw.text((x, y + TILE + 4 + LINE), fitting(hit.path.name, small, TILE), (110, 110, 110), small)
    if not hits:
        draw.text((GAP, top), "nothing found", INK, small)
    with whole_file(out_png) as temporary:
        sheet.save(temporary, "PNG")


def paste(sheet: Image.Image, path: Path, x: int, y: int) -> None:
    """The image in the middle of a square tile."""
    ImageDraw.Draw(sheet).rectangle((x, y, x + TILE - 1, y + TILE - 1), fill=PALE)
    try:
        image = Image.fromarray(open_image(path, obey_exif=True))
    except BadImage:
        return
    scale = TILE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, Image.Resampling.LANCZOS)
    sheet.paste(image, (x + (TILE - size[0]) // 2, y + (TILE - size[1]) // 2))


def font(size: int) -> ImageFont.FreeTypeFont:
    """A font with most alphabets, which comes with matplotlib."""
    import matplotlib

    return ImageFont.truetype(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"), size)


def fitting(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text on one line. If it is wider than `width` pixels, it ends in "..."."""
    text = printable(" ".join(text.split()))[: width + 1]  # no letter is narrower than a pixel
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
