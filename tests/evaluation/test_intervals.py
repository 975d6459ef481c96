"""Intervals cover the truth as often as they say, though the queries of one picture are alike."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import toy
from albef.config import DataConfig, TaskName
from albef.data.sources import open_source
from albef.engine import Engine
from albef.evaluation import metrics
from albef.evaluation.classes import evaluate_entailment, evaluate_nlvr
from albef.evaluation.evaluate import evaluate_pairs
from albef.evaluation.grounding import evaluate_grounding
from albef.evaluation.metrics import interval
from albef.evaluation.vqa import Asking, evaluate_vqa

LABELS = ("contradiction", "neutral", "entailment")
clustered = st.lists(st.tuples(st.booleans(), st.integers(0, 8)), min_size=1, max_size=40)


def drawn(
    rng: np.random.Generator, sizes: tuple[int, ...], share: float, alike: float, count: int = 300
) -> tuple[np.ndarray, np.ndarray]:
    """Right and wrong answers about `count` pictures, and the picture of each; two of one picture correlate so."""
    chances = rng.beta(share * (1 - alike) / alike, (1 - share) * (1 - alike) / alike, count)
    pictures = np.repeat(np.arange(count), rng.choice(sizes, count))
    return rng.random(len(pictures)) < chances[pictures], pictures


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
@pytest.mark.parametrize(("sizes", "alike"), [((1,), 0.2), ((5,), 0.2), ((5,), 0.5), ((1, 2, 5, 10), 0.2)])
def test_a_share_lies_where_its_interval_says(sizes: tuple[int, ...], alike: float, share: float) -> None:
    rng = np.random.default_rng(8)
    found = [interval(drawn(rng, sizes, share, alike)) for _ in range(1000)]
    assert 0.93 <= np.mean([low <= share <= high for low, high in found]) <= 0.97


@pytest.mark.parametrize("sizes", [(1,), (5,), (1, 2, 5, 10)])
def test_a_mean_of_shares_lies_where_its_interval_says(
    sizes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two directions of the same pictures, as in the mean of recalls: chance deals with both at once."""
    monkeypatch.setattr(metrics, "NUM_RESAMPLES", 200)
    rng, covered = np.random.default_rng(1), 0
    for seed in range(400):
        chances = rng.beta(2, 2, 100)
        asked = np.repeat(np.arange(100), rng.choice(sizes, 100)), np.arange(100)
        values = [(rng.binomial(3, chances[pictures]) / 3, pictures) for pictures in asked]
        low, high = interval(*values, seed=seed)
        covered += low <= 0.5 <= high
    assert 0.92 <= covered / 400 <= 0.97


@pytest.mark.parametrize(("pictures", "high"), [(500, 0.0076), (3, 0.5615)])
def test_an_interval_does_not_collapse_at_the_ends(pictures: int, high: float) -> None:
    """As Wilson's for that many of nothing: z² / (n + z²)."""
    none = np.zeros(5 * pictures), np.repeat(np.arange(pictures), 5)
    assert interval(none) == interval(none, none) == (0.0, pytest.approx(high, abs=1e-4))
    every = np.ones(5 * pictures), none[1]
    assert interval(every) == interval(every, every) == (pytest.approx(1 - high, abs=1e-4), 1.0)


def test_a_share_of_independent_queries_has_wilsons_interval() -> None:
    """The reference value of 8 in 20, save that the variance is estimated from the data (n - 1)."""
    assert metrics.wilson(0.4, 20) == pytest.approx((0.2188, 0.6134), abs=1e-4)
    hits = np.arange(20) < 8
    assert interval((hits, np.arange(20))) == pytest.approx(metrics.wilson(0.4, 19), abs=1e-9)


@settings(deadline=None)
@given(clustered, st.integers(2, 5))
def test_asking_again_makes_nothing_surer(answers: list[tuple[bool, int]], times: int) -> None:
    hits, pictures = np.array([hit for hit, _ in answers]), np.array([picture for _, picture in answers])
    once, again = interval((hits, pictures)), interval((np.repeat(hits, times), np.repeat(pictures, times)))
    numbered = np.unique(pictures, return_inverse=True)[1]
    if hits.all() or not hits.any() or metrics.effective_count(hits, numbered) < 0.999 * len(hits):
        assert again == pytest.approx(once)
    assert 0 <= once[0] <= hits.mean() <= once[1] <= 1
    assert once[0] < once[1]
    # Names of clusters and the order of the queries mean nothing.
    assert interval((hits[::-1], 1000 - pictures[::-1])) == pytest.approx(once)


def test_pictures_that_balance_each_other_promise_no_more_than_independent_queries() -> None:
    hits, pictures = np.tile([0, 1], 10), np.repeat(np.arange(10), 2)
    assert interval((hits, pictures)) == pytest.approx(metrics.wilson(0.5, 20))


def test_a_bootstrap_depends_on_its_seed_alone() -> None:
    values = np.random.default_rng(0).random(60), np.repeat(np.arange(20), 3)
    assert interval(values, seed=3) == interval(values, seed=3) != interval(values, seed=4)
    low, high = interval(values)
    means = values[0].reshape(20, 3).mean(1)
    assert high - low == pytest.approx(2 * 1.96 * means.std(ddof=1) / 20**0.5, rel=0.1)


def test_directions_of_the_same_pictures_are_drawn_together() -> None:
    """What is good in one direction is good in the other: the mean varies as much as each, not by 1/√2 of it."""
    values = np.random.default_rng(0).random(200), np.arange(200)
    one, both = interval(values), interval(values, values)
    assert both == pytest.approx(one, abs=1e-9)
    apart = interval(values, (values[0], values[1] + 200))
    assert apart[1] - apart[0] < 0.8 * (one[1] - one[0])


def rows_of(task: TaskName, folder: Path, count: int) -> list[dict[str, object]]:
    """A row for each of `count` pictures, with answers that any model gets right by chance."""
    rng, rows = np.random.default_rng(0), []
    for number in range(count):
        name, other = f"{number}.png", f"{(number + 3) % count}.png"
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(folder / name)
        text, label = toy.CAPTIONS[number % 4], LABELS[number % 3]
        answers = [("yes", "no", "2", "fox")[number % 4]] * 3 + ["two"]
        box = [int(side) for side in rng.integers(0, 8, 2)]
        of_task: dict[TaskName, dict[str, object]] = {
            "retrieval": {"caption": text},
            "vqa": {"question": text, "answer": answers},
            "entailment": {"sentence": text, "label": label},
            "nlvr": {"images": [name, other], "sentence": text, "label": str(number % 2 == 0)},
            "grounding": {"text": text, "box": [*box, 8, 8]},
        }
        rows.append({"image": name, "image_id": number, **of_task[task]})
    return rows


def figures(task: TaskName, engine: Engine, file: Path) -> dict[str, float]:
    source = open_source(DataConfig(source=str(file)), "test", 0, 16, task)
    if task == "retrieval":
        return dict(evaluate_pairs(engine, source, top_k=4))
    if task == "vqa":
        return dict(evaluate_vqa(engine, source, Asking(["yes", "no", "2", "fox"], k=4), "data"))
    measure = {"entailment": evaluate_entailment, "nlvr": evaluate_nlvr, "grounding": evaluate_grounding}
    return dict(measure[task](engine, source, "data"))


@pytest.mark.parametrize("task", ["retrieval", "vqa", "entailment", "nlvr", "grounding"])
def test_the_same_rows_three_times_are_no_surer(task: TaskName, tmp_path: Path) -> None:
    heads: dict[TaskName, tuple[str, ...]] = {
        "retrieval": ("contrast", "itm"), "grounding": ("contrast", "itm"), "vqa": ("answer",),
        "entailment": ("entailment",), "nlvr": ("nlvr",),
    }  # fmt: skip
    engine = toy.engine(*heads[task])
    rows = rows_of(task, tmp_path, 24)
    (tmp_path / "once.json").write_text(json.dumps(rows))
    (tmp_path / "thrice.json").write_text(json.dumps([row for row in rows for _ in range(3)]))
    once, thrice = (figures(task, engine, tmp_path / f"{name}.json") for name in ("once", "thrice"))
    bounded = [name for name in once if f"{name}_low" in once]
    if task == "retrieval":  # the other way round there are three times as many wrong candidates
        bounded = [name for name in bounded if "t2i" in name]
    assert bounded
    assert any(0 < once[name] < 1 for name in bounded)
    for name in bounded:
        for end in ("", "_low", "_high"):
            assert thrice[name + end] == pytest.approx(once[name + end], abs=1e-6), name + end


def test_statements_of_one_set_of_pictures_are_alike(tmp_path: Path) -> None:
    """NLVR2's keys are split-set-pair-sentence: of 24 rows in three sets, each asked in the same way, three count."""
    engine, rows = toy.engine("nlvr"), rows_of("nlvr", tmp_path, 24)
    for number, row in enumerate(rows):
        row |= {"identifier": f"dev-{number // 8}-{number % 4}-{number % 8 // 4}"}
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    found = figures("nlvr", engine, tmp_path / "rows.json")
    source = open_source(DataConfig(source=str(tmp_path / "rows.json")), "test", 0, 16, "nlvr")
    right = [
        (engine.judge(tmp_path / f"{n}.png", tmp_path / f"{(n + 3) % 24}.png", row["sentence"]) > 0.5)
        == (row["label"] == "True")
        for n, row in enumerate(rows)
    ]
    assert len(source) == 24
    ends = found["data/accuracy_low"], found["data/accuracy_high"]
    assert ends == pytest.approx(interval((np.array(right), np.arange(24) // 8)))
    both = np.array(right).reshape(6, 4).all(1)
    ends = found["data/consistency_low"], found["data/consistency_high"]
    assert ends == pytest.approx(interval((both, np.arange(6) // 2)))
