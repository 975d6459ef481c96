"""Entailment and NLVR2: how often the right class is chosen (paper §5.2, §5.4)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from albef.config import UserError
from albef.data.images import BadImage
from albef.data.rows import ENTAILMENT_LABELS, NLVR_LABELS
from albef.data.sources import Source
from albef.engine import Engine
from albef.evaluation.evaluate import Metric, with_interval
from albef.evaluation.judged import Judged, cluster_of, judged_metrics, of_all, shown


def judge_classes(
    engine: Engine, source: Source, labels: Sequence[str], shuffled: bool, bad: dict[int, BadImage]
) -> Iterator[Judged]:
    """The model's class of each record, and the expected one."""
    for batch in shown(engine, source, shuffled, bad):
        ids, mask = engine.text_tokens([record.captions[0] for record in batch.records])
        with engine.computing():
            model = engine.model
            memory = model.image_memory(model.encode_image(batch.visual))
            chances = model.classify(model.encode_text(ids, mask).tokens, mask, memory).float().softmax(1)
        best = chances.max(1)
        for index, record, number, chance in zip(
            batch.indices, batch.records, best.indices.tolist(), best.values.tolist(), strict=True
        ):
            if record.label is None:
                raise UserError(f"{record.origin}: has no label to evaluate with.")
            right = float(number == record.label)
            yield Judged(index, labels[record.label], labels[number], chance, right, cluster_of(record))


def evaluate_entailment(
    engine: Engine, source: Source, name: str, shuffled: bool = False
) -> Iterator[Metric]:
    """ "{name}/accuracy" with its interval and the confusion matrix: "{name}/share_{expected}_{answered}"."""
    found, bad = of_all(lambda bad: judge_classes(engine, source, ENTAILMENT_LABELS, shuffled, bad))
    yield from judged_metrics(name, found, bad)
    for expected in ENTAILMENT_LABELS:
        for answered in ENTAILMENT_LABELS:
            hits = [one.expected == expected and one.answered == answered for one in found]
            yield f"{name}/share_{expected}_{answered}", float(np.mean(hits))


def evaluate_nlvr(engine: Engine, source: Source, name: str, shuffled: bool = False) -> Iterator[Metric]:
    """ "{name}/accuracy" and "{name}/consistency" with intervals.

    Consistency is the share of statements that are judged right for all their image pairs. As in the official
    evaluation, a key is split-set-pair-sentence, and a statement is the key without its third part.
    """
    found, bad = of_all(lambda bad: judge_classes(engine, source, NLVR_LABELS, shuffled, bad))
    yield from judged_metrics(name, found, bad)
    keys = [source.record(one.index, 0).key for one in found]
    if all(keys):
        yield from with_interval(f"{name}/consistency", *consistencies(keys, found))


def consistencies(keys: Sequence[str], found: Sequence[Judged]) -> tuple[np.ndarray, list[int]]:
    """1 for each statement that is right for all its pairs, else 0, and the cluster of each statement."""
    pairs: dict[str, list[Judged]] = defaultdict(list)
    for key, one in zip(keys, found, strict=True):
        parts = key.split("-")
        pairs["-".join(parts[:2] + parts[3:])].append(one)
    right = [all(one.score == 1 for one in ones) for ones in pairs.values()]
    return np.array(right, dtype=float), [ones[0].cluster for ones in pairs.values()]
