"""Zero-shot classification: how often the right class is the first, where only the names of classes are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Int

from albef.config import UserError
from albef.data.class_folders import ClassFolders
from albef.data.images import BadImage
from albef.engine import Engine
from albef.engine.zero_shot import class_features, sentences_of_classes
from albef.evaluation.evaluate import Metric, with_interval
from albef.evaluation.metrics import ranks
from albef.evaluation.ranking import Features, Gallery, features_of_images, features_of_texts

TOPS = (1, 5)  # shares of images whose class is among the first 1, 5


def evaluate_classes(
    engine: Engine, found: ClassFolders, templates: Sequence[str], name: str = "data"
) -> Iterator[Metric]:
    """Figures such as "data/top1" with values 0–1: the share of images whose own class is the most similar.

    "data/top5" is there for more than 5 classes, "data/class/{class}/top1" and "…/count" for each class with a readable
    image, and "data/class/{class}/taken_for/{other}" is the share of its images that went to the commonest wrong class.
    "…_low" and "…_high" are the ends of the 95 % interval; "data/blind" has the figures with each image replaced by
    another one. "data/count", "data/skipped" (unreadable images), "data/classes" and "data/templates" are counts.
    Raises `UserError` for classes that the model cannot tell apart, and if no image is readable.
    """
    said = features_of_texts(engine, sentences_of_classes(engine.prepare, found.names, templates))
    of_classes = class_features(torch.from_numpy(said).unflatten(0, (len(found.names), -1))).numpy()
    bad: dict[int, BadImage] = {}
    of_images = features_of_images(engine, found.images, bad)
    labels = np.array([label for number, label in enumerate(found.labels) if number not in bad])
    if not len(labels):
        raise UserError(f"No readable image is left to evaluate ({next(iter(bad.values()))}).")
    yield f"{name}/count", float(len(labels))
    yield f"{name}/skipped", float(len(bad))
    yield f"{name}/classes", float(len(found.names))
    yield f"{name}/templates", float(len(templates))
    rank, first = classified(of_images, of_classes, labels)
    yield from tops(name, rank, len(found.names))
    if len(labels) > 1:
        blind, _ = classified(of_images[others(len(labels))], of_classes, labels)
        yield from tops(f"{name}/blind", blind, len(found.names))
    for label, of_class in enumerate(found.names):
        own = labels == label
        if own.any():
            yield from class_metrics(
                f"{name}/class/{of_class}", rank[own] == 0, first[own], label, found.names
            )


def classified(
    of_images: Features, of_classes: Features, labels: Int[np.ndarray, " images"]
) -> tuple[Int[np.ndarray, " images"], Int[np.ndarray, " images"]]:
    """For each image the number of classes before its own (see `metrics.ranks`), and the most similar class."""
    rank, first = [], []
    for block, similarity in Gallery(of_images, of_classes).blocks():
        rank.append(ranks(similarity, labels[block].tolist()))
        first.append(similarity.argmax(1))
    return np.concatenate(rank), np.concatenate(first)


def tops(name: str, rank: Int[np.ndarray, " images"], num_classes: int) -> Iterator[Metric]:
    """ "{name}/top1", and with enough classes "{name}/top5", with intervals. Each image is drawn for itself."""
    for k in TOPS:
        if k < num_classes:
            yield from with_interval(f"{name}/top{k}", rank < k, np.arange(len(rank)))


def class_metrics(
    name: str,
    right: np.ndarray,
    first: Int[np.ndarray, " images"],
    label: int,
    names: Sequence[str],
) -> Iterator[Metric]:
    """The figures of one class: its accuracy, its number of images, and the class that most of the others went to."""
    yield from with_interval(f"{name}/top1", right, np.arange(len(right)))
    yield f"{name}/count", float(len(right))
    wrong = np.bincount(first[first != label], minlength=len(names))
    if wrong.any():
        yield f"{name}/taken_for/{names[int(wrong.argmax())]}", float(wrong.max() / len(right))


def others(count: int) -> Int[np.ndarray, " images"]:
    """For each of the images, which come class by class, another one of any class; each is once another's."""
    order = np.random.default_rng(0).permutation(count)
    other = np.empty_like(order)
    other[order] = np.roll(order, 1)
    return other
