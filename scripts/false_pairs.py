"""How well a model finds the false captions among its own training pairs. The data made them, so it is known which.

Pairs are sorted by suspicion, in three ways. The teacher: how much better it likes the best other caption. ITC: how
unlike image and caption are. ITC and ITM: how low the pair's score is. Precision is the share of false pairs among those
that are suspected, recall the share of all false pairs that are among them.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from albef import Engine
from albef.config import Config, UserError
from albef.data.pictograms.captions import holds
from albef.data.pictograms.gallery import Item
from albef.data.sources import PictogramSource
from albef.evaluation.ranking import match_scores
from albef.recipe import load_recipe
from albef.train.checkpoint import checkpoints_in, load_task
from albef.writing import write_json

BATCH = 128  # captions that the teacher chooses from, as in training
RECALLS = (0.1, 0.25, 0.5, 0.75, 0.9)
PRECISIONS = {f"at_{recall:g}": recall for recall in RECALLS}  # names of figures, by what they are at
SUSPECTED_BY = {"teacher": "the teacher", "itc": "ITC", "sum": "ITC and ITM"}


def pairs_of(config: Config, count: int) -> list[Item]:
    """Training pairs of the first epoch, in their own order."""
    pairs = PictogramSource(config.data, "train", config.train.seed, config.model.image_size).pairs
    return [pairs.item(index) for index in range(min(count, len(pairs)))]


def preferred(similarity: np.ndarray, meanings: np.ndarray) -> np.ndarray:
    """By how much each image's best other caption is more similar than its own. The same meaning is no other one."""
    own = similarity.diagonal()
    others = np.where(meanings[:, None] == meanings, -np.inf, similarity).max(1)
    return np.where(np.isfinite(others), others - own, -1.0)


def suspicions(engine: Engine, teacher: Engine, items: list[Item]) -> dict[str, np.ndarray]:
    """By way: how suspicious each pair is."""
    images, captions = [item.image for item in items], [item.caption for item in items]
    meanings = np.array([item.meaning for item in items])
    looks, reads = teacher.encode_images(images), teacher.encode_texts(captions)
    batches = [slice(first, first + BATCH) for first in range(0, len(items), BATCH)]
    of_teacher = [preferred(looks[batch] @ reads[batch].T, meanings[batch]) for batch in batches]
    cosine = (engine.encode_images(images) * engine.encode_texts(captions)).sum(1)
    each = np.arange(len(items))
    odds = match_scores(engine, images, captions, np.stack([each, each], 1))
    score = cosine / engine.temperature + odds
    return {"teacher": np.concatenate(of_teacher), "itc": -cosine, "sum": -score}


def precisions(suspicion: np.ndarray, false: np.ndarray) -> dict[str, float]:
    """The mean precision over all recalls (average precision), and the precision at some recalls."""
    right = false[np.argsort(-suspicion, kind="stable")]
    precision = right.cumsum() / np.arange(1, len(right) + 1)
    at = precision[right]  # where each further false pair is found
    found = {
        name: float(at[max(0, int(np.ceil(recall * len(at))) - 1) :].max())
        for name, recall in PRECISIONS.items()
    }
    return {"average_precision": float(at.mean()), **found}


def main() -> None:
    """Measures a run and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a pre-training on pictograms")
    parser.add_argument("--count", type=int, default=2048, help="number of training pairs (default: 2048)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    config = load_recipe(given.run / "config.yaml")
    engine = Engine.load(given.run, quiet=True)
    task, _ = load_task(checkpoints_in(given.run / "checkpoints")[-1], config)
    if task.teacher is None:
        raise UserError(f"{given.run}: has no teacher to ask.")
    items = pairs_of(config, given.count)
    false = np.array([not holds(item.claim, item.scene) for item in items])
    figures = {"pairs": float(len(items)), "share": float(false.mean())}
    if false.any():
        teacher = Engine(task.teacher.module, engine.tokenizer, quiet=True)
        for way, suspicion in suspicions(engine, teacher, items).items():
            figures |= {f"{way}/{name}": value for name, value in precisions(suspicion, false).items()}
    if given.json:
        write_json(given.json, figures)
    table = Table("%", *(f"at recall {100 * recall:g}" for recall in RECALLS), "mean")
    for way in SUSPECTED_BY:
        names = [*PRECISIONS, "average_precision"]
        table.add_row(way, *(f"{100 * figures.get(f'{way}/{name}', np.nan):.1f}" for name in names))
    Console().print(table, f"{100 * figures['share']:.1f} % of {len(items):,} pairs are false.")


if __name__ == "__main__":
    main()
