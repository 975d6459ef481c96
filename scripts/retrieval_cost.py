"""What finding the images of a text costs: passes, GFLOP and seconds of a query, by the size of the gallery.

Images are encoded once, before any query. A model with ITC encodes the text, compares it with all images, and matches it
with the best ones. A model without ITC matches it with every image. A few queries are timed, on one thread: a text, a
match, a comparison. All else is computed from that.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from albef import Engine
from albef.data.pictograms.gallery import Gallery, gallery
from albef.model import kernels
from albef.model.kernels import Kernels
from albef.writing import write_json

GALLERIES = (1_000, 10_000, 1_000_000)
COMPARED = 10_000  # images whose features are compared at once
GIGA = 1e9


def of_linear(states: torch.Size, *_: object, out_shape: torch.Size | None = None, **__: object) -> int:
    """The operations of a linear layer by oneDNN, which torch's counter does not know."""
    assert out_shape is not None
    return 2 * math.prod(out_shape) * states[-1]


def operations(work: Callable[[], object]) -> float:
    """The floating-point operations of some work, in billions."""
    before = kernels.used()
    kernels.use(Kernels("plain", "torch"))
    linear = {torch.ops.mkldnn._linear_pointwise: of_linear}
    with FlopCounterMode(display=False, custom_mapping=linear) as counter:
        work()
    kernels.use(before)
    return counter.get_total_flops() / GIGA


def in_turn(works: Mapping[str, Callable[[int], object]], queries: int) -> dict[str, float]:
    """The median CPU time of each work for a query. They take turns, after one round to warm up."""
    spent: dict[str, list[float]] = {name: [] for name in works}
    for number in range(queries + 1):
        for name, work in works.items():
            began = time.process_time()
            work(number)
            spent[name].append(time.process_time() - began)
    return {name: statistics.median(each[1:]) for name, each in spent.items()}


class Parts(NamedTuple):
    """What a query is made of, each for the query of a number; None for what the model does not do."""

    text: Callable[[int], object]
    match: Callable[[int], object] | None
    compare: Callable[[int], object] | None
    pairs: int  # in a match
    width: int  # of the features that are compared


def parts_of(engine: Engine, queries: int, top_k: int, drawn: Gallery) -> Parts:
    """A query's parts: the first captions of a gallery, matched with its first images."""
    texts = [drawn.captions[number % len(drawn.captions)] for number in range(queries + 1)]
    images = next(iter(engine.image_encodings(list(drawn.images[:top_k]))))
    encoded = list(engine.text_encodings(texts, batch_size=1))
    width = images.feature.shape[1] if engine.can_contrast else 0
    features = torch.nn.functional.normalize(torch.randn(COMPARED, width), dim=1)
    return Parts(
        lambda number: next(iter(engine.text_encodings([texts[number]]))),
        (lambda number: engine.match_images(encoded[number], images)) if engine.can_match else None,
        (lambda number: features @ encoded[number].feature[0]) if engine.can_contrast else None,
        len(images.tokens),
        width,
    )


def measured(
    engines: Mapping[str, Engine], queries: int, top_k: int, count: int, seed: int, nouns: int
) -> dict[str, dict[str, float]]:
    """By name of the model, the cost of the parts of a query, and of whole queries by size of the gallery.

    The images are the first of a test gallery of `count`. A smaller gallery may have others, and so other regions.
    """
    parts = {
        name: parts_of(engine, queries, top_k, gallery("test", seed, count, nouns, engine.config.image_size))
        for name, engine in engines.items()
    }
    works = {
        f"{name}/{what}": work
        for name, one in parts.items()
        for what, work in (("text", one.text), ("match", one.match), ("compare", one.compare))
        if work
    }
    spent = in_turn(works, queries)
    return {name: costs(name, one, spent, top_k) for name, one in parts.items()}


def costs(name: str, parts: Parts, spent: Mapping[str, float], top_k: int) -> dict[str, float]:
    """What the parts of a model's query cost, and the whole one by size of the gallery."""
    found = {"text_gflop": operations(lambda: parts.text(0)), "text_seconds": spent[f"{name}/text"]}
    if match := parts.match:
        found["match_gflop"] = operations(lambda: match(0)) / parts.pairs
        found["match_seconds"] = spent[f"{name}/match"] / parts.pairs
    if parts.compare:
        found["compare_gflop"] = 2 * parts.width / GIGA
        found["compare_seconds"] = spent[f"{name}/compare"] / COMPARED
    for images in GALLERIES:
        compared = images if parts.compare else 0
        matched = 0 if not parts.match else min(top_k, images) if parts.compare else images
        found[f"{images}/passes"] = 1.0 + matched
        for unit in ("gflop", "seconds"):
            found[f"{images}/{unit}"] = (
                found[f"text_{unit}"]
                + matched * found.get(f"match_{unit}", 0.0)
                + compared * found.get(f"compare_{unit}", 0.0)
            )
    return found


def three_digits(value: float) -> str:
    """A figure rounded to three digits, without an exponent."""
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.3g}"


def main() -> None:
    """Measures a model and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="run or model directory")
    parser.add_argument(
        "--queries", type=int, default=20, help="number of queries that are timed (default: 20)"
    )
    parser.add_argument(
        "--top-k", type=int, default=64, help="images that are matched after ITC (default: 64)"
    )
    parser.add_argument("--count", type=int, default=500, help="images of the gallery (default: 500)")
    parser.add_argument("--nouns", type=int, default=24, help="of the drawn images (default: 24)")
    parser.add_argument(
        "--regions", default="", help="where the regions of the images of this gallery, seed 1, are"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    torch.set_num_threads(1)
    engine = Engine.load(given.model, quiet=True, regions=given.regions)
    figures = measured({"": engine}, given.queries, given.top_k, given.count, 1, given.nouns)[""]
    if given.json:
        write_json(given.json, figures)
    table = Table("images", "passes", "GFLOP", "seconds")
    for images in GALLERIES:
        passes, gflop, spent = (figures[f"{images}/{unit}"] for unit in ("passes", "gflop", "seconds"))
        table.add_row(f"{images:,}", f"{passes:,.0f}", three_digits(gflop), three_digits(spent))
    Console().print(table)


if __name__ == "__main__":
    main()
