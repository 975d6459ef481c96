"""Entailment and NLVR2 by a model whose answers are given, so that every figure can be counted by hand."""

import contextlib
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
import torch

import toy
from albef.config import UserError
from albef.data.images import BadImage
from albef.data.records import Record
from albef.data.rows import ENTAILMENT_LABELS, NLVR_LABELS
from albef.engine import Engine
from albef.evaluation import classes, grounding
from albef.evaluation.classes import evaluate_entailment, evaluate_nlvr, judge_classes
from albef.evaluation.evaluate import Metric
from albef.evaluation.grounding import evaluate_grounding
from albef.evaluation.judged import Judged, cluster_of, judged_metrics
from albef.evaluation.metrics import interval

GREY = np.full((16, 16, 3), 100, np.uint8)


class Labelled:
    """Sentences with these labels, about one picture or (with keys) two."""

    couple, notes = 1, ()

    def __init__(self, labels: list[int | None], keys: list[str] | None = None) -> None:
        self.labels, self.keys = labels, keys

    def __len__(self) -> int:
        return len(self.labels)

    def record(self, index: int, epoch: int) -> Record:
        assert epoch == 0
        return Record(
            GREY + index, ("a fox",), index, None, f"row {index}", label=self.labels[index],
            key=self.keys[index] if self.keys else "", second_image=None if self.keys is None else GREY,
        )  # fmt: skip


def answering(head: str, chances: list[list[float]], monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine whose model gives these chances to the classes of the records, one after the other."""
    engine, left = toy.engine(head), iter(chances)

    def classify(tokens: torch.Tensor, *_: object) -> torch.Tensor:
        return torch.tensor([next(left) for _ in tokens]).log()

    monkeypatch.setattr(engine.model, "classify", classify)
    return engine


SURE = {0: [0.7, 0.2, 0.1], 1: [0.1, 0.8, 0.1], 2: [0.2, 0.2, 0.6]}


def test_what_is_answered_is_the_likeliest_class(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = answering("entailment", [SURE[n] for n in (0, 1, 2, 2)], monkeypatch)
    found = list(judge_classes(engine, Labelled([0, 0, 2, 1]), ENTAILMENT_LABELS, False, {}))
    assert [(one.index, one.expected, one.answered, one.score, one.cluster) for one in found] == [
        (0, "contradiction", "contradiction", 1.0, 0),
        (1, "contradiction", "neutral", 0.0, 1),
        (2, "entailment", "entailment", 1.0, 2),
        (3, "neutral", "entailment", 0.0, 3),
    ]
    assert [one.probability for one in found] == pytest.approx([0.7, 0.8, 0.6, 0.6])


def test_shares_of_what_was_called_what(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, answered = [0, 0, 1, 1, 2, 2, 2, 0], [0, 1, 1, 2, 2, 2, 0, 0]
    engine = answering("entailment", [SURE[n] for n in answered], monkeypatch)
    found = dict(evaluate_entailment(engine, Labelled(expected), "x"))
    low, high = interval((np.array([1, 0, 1, 0, 1, 1, 0, 1]), np.arange(8)))
    shares = {
        "x/accuracy": 5 / 8,
        "x/accuracy_low": low,
        "x/accuracy_high": high,
        "x/count": 8,
        "x/skipped": 0,
    }
    for one in range(3):
        for other in range(3):
            count = sum((e, a) == (one, other) for e, a in zip(expected, answered, strict=True))
            shares[f"x/share_{ENTAILMENT_LABELS[one]}_{ENTAILMENT_LABELS[other]}"] = count / 8
    assert found == pytest.approx(shares)


def test_a_statement_is_right_with_all_its_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = ["dev-1-0-0", "dev-1-1-0", "dev-1-0-1", "dev-2-0-0", "test-2-0-0"]
    right, wrong = [0.1, 0.9], [0.6, 0.4]
    answers = [right, wrong, right, right, right]
    engine = answering("nlvr", answers, monkeypatch)
    found = dict(evaluate_nlvr(engine, Labelled([1] * 5, keys), "x"))
    assert (found["x/accuracy"], found["x/consistency"], found["x/count"]) == (0.8, 0.75, 5.0)
    ends = found["x/consistency_low"], found["x/consistency_high"]
    assert ends == interval((np.array([0, 1, 1, 1]), [0, 0, 1, 2]))
    ends = found["x/accuracy_low"], found["x/accuracy_high"]
    assert ends == interval((np.array([1, 0, 1, 1, 1]), [0, 0, 0, 1, 2]))
    for some in (["", *keys[1:]], [""] * 5):  # it can't be known which belong together
        engine = answering("nlvr", answers, monkeypatch)
        found = dict(evaluate_nlvr(engine, Labelled([1] * 5, some), "x"))
        assert found["x/accuracy"] == 0.8
        assert "x/consistency" not in found


def test_labels_of_statements(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = answering("nlvr", [[0.9, 0.1], [0.2, 0.8]], monkeypatch)
    found = list(judge_classes(engine, Labelled([0, 0], ["", ""]), NLVR_LABELS, False, {}))
    assert [(one.expected, one.answered) for one in found] == [("False", "False"), ("False", "True")]


def test_a_record_without_a_label_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = answering("entailment", [SURE[0]] * 2, monkeypatch)
    with pytest.raises(UserError, match="row 1: has no label to evaluate with"):
        dict(evaluate_entailment(engine, Labelled([0, None]), "x"))


def test_figures_of_groups_and_of_nothing() -> None:
    scores, clusters = [1.0, 0.0, 0.5, 1.0], [3, 3, 4, 5]
    found = [
        Judged(n, "a" if n < 2 else "b", "", 1.0, score, cluster)
        for n, (score, cluster) in enumerate(zip(scores, clusters, strict=True))
    ]
    metrics = dict(judged_metrics("x", found, {7: BadImage("torn")}, lambda one: one.expected, "open"))
    shares = {name: value for name, value in metrics.items() if not name.endswith(("_low", "_high"))}
    assert shares == {"x/open": 0.625, "x/count": 4, "x/skipped": 1, "x/open_a": 0.5, "x/open_b": 0.75}
    assert (metrics["x/open_a_low"], metrics["x/open_a_high"]) == interval((np.array([1, 0]), [3, 3]))
    assert (metrics["x/open_b_low"], metrics["x/open_b_high"]) == interval((np.array([0.5, 1]), [4, 5]))
    assert "x/accuracy_a" not in dict(judged_metrics("x", found, {}))
    with pytest.raises(UserError, match=r"left to evaluate \(torn\)\."):
        dict(judged_metrics("x", [], {7: BadImage("torn")}))
    with pytest.raises(UserError, match=r"left to evaluate\."):
        dict(judged_metrics("x", [], {}))


def test_records_of_one_picture_are_a_cluster() -> None:
    def of(image: object, image_id: int | None = None, key: str = "", second: object = None) -> int:
        return cluster_of(Record(image, ("a",), image_id, None, "", key=key, second_image=second))

    assert of("a.png", 7) == of("b.png", 7) == 7
    assert of("a.png") == of("a.png") != of("b.png")
    assert of("a.png", 7, "dev-3-0-1") == 7  # of one picture the key says something else
    assert of("a.png", 7, "dev-3-0-1", "b.png") == of("c.png", 8, "dev-3-2-0", "d.png") != 7
    assert of("a.png", 7, "dev-4-0-1", "b.png") != of("a.png", 7, "dev-3-0-1", "b.png")
    assert of("a.png", 7, "test-3-0-1", "b.png") != of("a.png", 7, "dev-3-0-1", "b.png")
    assert of("a.png", 7, "", "b.png") == 7


@pytest.mark.parametrize(
    ("module", "measure"),
    [(classes, evaluate_entailment), (classes, evaluate_nlvr), (grounding, evaluate_grounding)],
)
def test_images_are_exchanged_for_the_control_alone(
    module: ModuleType, measure: Callable[..., Iterator[Metric]], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def shown(engine: object, source: object, shuffled: bool, *rest: object, **more: object) -> list[object]:
        asked.append(shuffled)
        return []

    monkeypatch.setattr(module, "shown", shown)
    engine = toy.engine("contrast", "itm", "entailment", "nlvr")
    for choice in ({}, {"shuffled": True}):
        with contextlib.suppress(UserError):  # nothing is left to measure
            list(measure(engine, Labelled([1]), "x", **choice))
    assert asked == [False, True]
