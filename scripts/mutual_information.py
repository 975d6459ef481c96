"""How many bits an image and its caption have in common: what a model shows, and what the data put into the caption.

What a model shows is a bound (InfoNCE, van den Oord et al. 2018): log K − L, where L is the loss of telling a pair among
K. It is never above log K, and never above the truth. What a caption says is counted: a caption that is true of one
scene in 1,024 says 10 bits. The truth may be a little more, since what a caption leaves out tells something too.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy

from albef import Engine
from albef.data.pictograms.captions import Claim, holds
from albef.data.pictograms.gallery import Item, Pictograms
from albef.data.pictograms.scenes import Scene, Scenes
from albef.evaluation.ranking import match_scores
from albef.recipe import load_recipe
from albef.writing import write_json

SIZES = (128, 1_000, 10_000)  # K: among how many a pair is to be told
ROWS = 500  # of a matrix of logits that are held at once
MATCHED = 4  # blocks of the smallest K whose pairs are all matched
FITTED = 1_000  # other pairs, by which the scale of the similarities is chosen
CLAIMS = 2_000  # captions whose bits are counted
STRETCH = [2.0 ** (step / 4) for step in range(-8, 9)]


def bits(nats: float) -> float:
    """Bits instead of nats."""
    return nats / math.log(2)


def loss(rows: Tensor, columns: Tensor) -> float:
    """The cross-entropy of telling each row's own column, by the dot product."""
    own = torch.arange(len(rows))
    parts = [
        cross_entropy(rows[first : first + ROWS] @ columns.T, own[first : first + ROWS], reduction="sum")
        for first in range(0, len(rows), ROWS)
    ]
    return float(torch.stack(parts).sum()) / len(rows)


def bound(images: Tensor, texts: Tensor, size: int) -> float:
    """The InfoNCE bound in bits, over blocks of so many pairs, in both directions."""
    losses = [
        (loss(image, text) + loss(text, image)) / 2
        for image, text in zip(images.split(size), texts.split(size), strict=True)
        if len(image) == size
    ]
    return bits(math.log(size) - sum(losses) / len(losses))


def bound_of(logits: Tensor) -> float:
    """The same of blocks of logits [B, K, K]."""
    own = torch.arange(logits.shape[1]).expand(len(logits), -1)
    both = (cross_entropy(logits.transpose(1, 2), own) + cross_entropy(logits, own)) / 2
    return bits(math.log(logits.shape[1]) - float(both))


def pairs_of(split: str, seed: int, count: int, nouns: int, image_size: int) -> list[Item]:
    """Pairs that have nothing to do with one another, and true captions."""
    pairs = Pictograms(split, seed, count, nouns, image_size, twin_share=0.0)
    return [pairs.item(index) for index in range(count)]


def features(engine: Engine, items: Sequence[Item]) -> tuple[Tensor, Tensor]:
    """ITC's features of images and of captions, [N, E] each; their dot products are ITC's logits."""
    images = torch.as_tensor(engine.encode_images([item.image for item in items]))
    texts = torch.as_tensor(engine.encode_texts([item.caption for item in items]))
    return images / engine.temperature, texts


def odds(engine: Engine, items: Sequence[Item]) -> Tensor:
    """ITM's log-odds of every image with every caption, [N, N]."""
    each = np.arange(len(items))
    every = np.stack(np.meshgrid(each, each, indexing="ij"), -1).reshape(-1, 2)
    found = match_scores(engine, [item.image for item in items], [item.caption for item in items], every)
    return torch.as_tensor(found).view(len(items), len(items))


def shown(engine: Engine, items: Sequence[Item], others: Sequence[Item]) -> dict[str, float]:
    """The bounds in bits, by score and K. How much each score weighs is chosen by other pairs."""
    images, texts = features(engine, items)
    other_images, other_texts = features(engine, others)
    stretch = max(STRETCH, key=lambda by: bound(other_images * by, other_texts, len(others)))
    sizes = [size for size in SIZES if size <= len(items)] or [len(items)]
    found = {f"itc/{size}": bound(images * stretch, texts, size) for size in sizes}
    if engine.can_match:
        size = min(sizes[0], len(others))
        similarity, match = other_images[:size] @ other_texts[:size].T, odds(engine, others[:size])
        weights = [(one, other) for one in STRETCH for other in STRETCH]
        one, other = max(weights, key=lambda by: bound_of((by[0] * similarity + by[1] * match)[None]))
        blocks = [
            slice(size * number, size * (number + 1)) for number in range(min(MATCHED, len(items) // size))
        ]
        logits = [one * images[part] @ texts[part].T + other * odds(engine, items[part]) for part in blocks]
        found[f"sum/{size}"] = bound_of(torch.stack(logits))
    return found


def counted(claims: Sequence[Claim], scenes: Sequence[Scene]) -> float:
    """The mean number of bits that claims say: minus the logarithm of the share of scenes of which one is true.

    The scene that a claim is about counts as one more.
    """
    having: dict[tuple[str, int], set[int]] = {}
    for number, scene in enumerate(scenes):
        nouns = [thing.noun for thing in scene.things]
        for noun in set(nouns):
            having.setdefault((noun, nouns.count(noun)), set()).add(number)
    total = 0.0
    for claim in claims:
        may = set.intersection(*(having.get((m.noun, m.count), set[int]()) for m in claim.things))
        true = sum(holds(claim, scenes[number]) for number in may)
        total += math.log2((len(scenes) + 1) / (true + 1))
    return total / len(claims)


def main() -> None:
    """Measures a model and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="folder of a pre-training on pictograms")
    parser.add_argument("--count", type=int, default=SIZES[-1], help="number of pairs (default: 10000)")
    parser.add_argument(
        "--scenes",
        type=int,
        default=200_000,
        help="number of scenes by which bits are counted (default: 200000)",
    )
    parser.add_argument("--seed", type=int, default=1, help="random seed of the pairs (default: 1)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    engine, data = Engine.load(given.run, quiet=True), load_recipe(given.run / "config.yaml").data
    drawn = (data.num_nouns, engine.config.image_size)
    items = pairs_of("test", given.seed, given.count, *drawn)
    others = pairs_of("test", given.seed + 1, min(FITTED, given.count), *drawn)
    source = Scenes("test", given.seed + 2, data.num_nouns, twin_share=0.0)
    scenes = [source.scene(index) for index in range(given.scenes)]
    figures = shown(engine, items, others)
    figures["counted"] = counted([item.claim for item in items[:CLAIMS]], scenes)
    if given.json:
        write_json(given.json, figures)
    table = Table("K", "at most", "ITC", "ITC and ITM")
    for size in sorted({int(name.partition("/")[2]) for name in figures if "/" in name}):
        each = (figures.get(f"{score}/{size}") for score in ("itc", "sum"))
        table.add_row(
            f"{size:,}", f"{math.log2(size):.2f}", *("" if one is None else f"{one:.2f}" for one in each)
        )
    Console().print(table, f"The captions say {figures['counted']:.2f} bits.")


if __name__ == "__main__":
    main()
