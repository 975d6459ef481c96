"""Figures as they stand in the tables of a terminal."""

import io

import pytest
from rich.console import Console
from rich.table import Table

from albef.data.rows import ENTAILMENT_LABELS
from albef.evaluation.tables import (
    confusion,
    confusion_table,
    interval,
    measured,
    metrics_table,
    percent,
    tables,
    task_table,
)


def bounded(name: str, value: float) -> dict[str, float]:
    return {name: value, f"{name}_low": value - 0.04, f"{name}_high": value + 0.07}


def cells(table: Table) -> list[list[str]]:
    """The words of each line."""
    console = Console(width=120, file=io.StringIO())
    with console.capture() as shown:
        console.print(table)
    return [line.split() for line in shown.get().splitlines() if line.strip()]


RECALLED = {
    f"{split}/{score}/{way}_r{k}": value + k / 1000
    for split, value in (("test", 0.4), ("test/blind", 0.1), ("unseen_vendor", 0.2))
    for score in ("itc", "itm")
    for way in ("t2i", "i2t")
    for k in (1, 5, 10)
} | {"test/itc/r_mean": 0.5}


def test_recalls_stand_by_split_and_score_in_their_order() -> None:
    lines = cells(metrics_table(RECALLED | bounded("test/itc/t2i_r1", 0.3)))
    assert ["test", "itc", "30.0", "(26–37)", "40.5", "41.0", "40.1", "40.5", "41.0", "50.0"] in lines
    assert ["test,", "blind", "itm", "10.1", "10.5", "11.0", "10.1", "10.5", "11.0"] in lines
    assert ["unseen", "vendor", "itc", "20.1", "20.5", "21.0", "20.1", "20.5", "21.0"] in lines
    assert [line[-1] for line in lines if "itc" in line] == ["50.0", "11.0", "21.0"]
    heading = lines[:2]
    assert heading[0] == ["text→image", "image→text"]
    assert heading[1] == ["%", "score", "R@1", "R@5", "R@10", "R@1", "R@5", "R@10", "mean"]
    assert not any("foils" in line for line in lines)


def test_foils_stand_below() -> None:
    foils = {f"test/itm/foil_{kind}": 0.9 for kind in ("noun", "count", "size", "background", "location")}
    lines = cells(metrics_table(RECALLED | foils | {"test/itm/foil_relation": 0.55}))
    assert ["test", "itm", "90.0", "90.0", "90.0", "90.0", "90.0", "55.0"] in lines
    assert ["foils"] in lines
    assert ["%", "score", "noun", "count", "size", "background", "location", "relation"] in lines


def test_figures_of_a_task_stand_beside_their_control() -> None:
    metrics = bounded("test/accuracy", 0.5) | bounded("test/blind/accuracy", 0.3) | {"test/count": 9.0}
    metrics |= bounded("unseen_vendor/blind/open_accuracy", 0.2)
    lines = cells(task_table(metrics))
    assert lines[0] == ["%", "with", "its", "image", "blind:", "another", "image"]
    assert ["test/accuracy", "50.0", "(46–57)", "30.0", "(26–37)"] in lines
    assert ["unseen", "vendor/open", "accuracy", "20.0", "(16–27)"] in lines
    assert len(lines) == 4


def test_measured_once_whether_blind_or_not() -> None:
    metrics = bounded("a/x", 0.5) | bounded("a/blind/x", 0.5) | bounded("a/blind/y", 0.5) | {"a/count": 3.0}
    assert measured(metrics) == ["a/x", "a/y"]


def shares(name: str, *rows: tuple[float, float, float]) -> dict[str, float]:
    return {
        f"{name}/share_{expected}_{answered}": share
        for expected, row in zip(ENTAILMENT_LABELS, rows, strict=True)
        for answered, share in zip(ENTAILMENT_LABELS, row, strict=True)
    }


def test_confusion_is_out_of_those_with_a_label() -> None:
    metrics = shares("test", (0.1, 0.3, 0.0), (0.0, 0.6, 0.0), (0.0, 0.0, 0.0))
    assert confusion(metrics, "test").tolist() == [[0.25, pytest.approx(0.75), 0], [0, 1, 0], [0, 0, 0]]
    lines = cells(confusion_table(metrics, "test"))
    assert lines[0] == ["test:", "answered,", "out", "of", "100"]
    assert lines[1] == ["expected", "contradiction", "neutral", "entailment"]
    assert ["contradiction", "25.0", "75.0", "0.0"] in lines
    assert ["neutral", "0.0", "100.0", "0.0"] in lines
    assert ["entailment", "0.0", "0.0", "0.0"] in lines


def test_everything_that_there_is_to_show() -> None:
    assert [cells(table)[0][0] for table in tables(RECALLED)] == ["text→image"]
    of_task = bounded("test/accuracy", 0.5) | shares("test", *[(0.1, 0.1, 0.1)] * 3)
    of_task |= shares("test/blind", *[(0.1, 0.1, 0.1)] * 3) | bounded("data/accuracy", 0.4)
    of_task |= shares("data", *[(0.1, 0.1, 0.1)] * 3)
    first = [cells(table)[0][0] for table in tables(of_task)]
    assert first == ["%", "test:", "test/blind:", "data:"]


def shown(table: Table) -> list[str]:
    console = Console(width=120, file=io.StringIO())
    with console.capture() as lines:
        console.print(table)
    return [line.rstrip() for line in lines.get().splitlines() if line.strip()]


def test_what_tables_look_like() -> None:
    """Words at the left, numbers at the right, a line below the heading."""
    recalled = {f"test/itc/t2i_r{k}": value for k, value in ((1, 0.0512), (5, 0.4), (10, 1.0))}
    assert shown(metrics_table(recalled | {"test/itc/foil_noun": 0.5})) == [
        "                       text→image               image→text",
        " %              score         R@1   R@5   R@10         R@1  R@5  R@10  mean",
        " ──────────────────────────────────────────────────────────────────────────",
        " test           itc           5.1  40.0  100.0",
        "                       foils",
        " %              score   noun  count  size  background  location  relation",
        " ────────────────────────────────────────────────────────────────────────",
        " test           itc     50.0",
    ]
    assert shown(task_table(bounded("test/accuracy", 0.5) | bounded("test/blind/accuracy", 0.05))) == [
        "  %               with its image   blind: another image",
        " ───────────────────────────────────────────────────────",
        "  test/accuracy     50.0 (46–57)             5.0 (1–12)",
    ]
    assert shown(confusion_table(shares("test", *[(0.1, 0.1, 0.8)] * 3), "test")) == [
        "               test: answered, out of 100",
        "  expected        contradiction   neutral   entailment",
        " ──────────────────────────────────────────────────────",
        "  contradiction            10.0      10.0         80.0",
        "  neutral                  10.0      10.0         80.0",
        "  entailment               10.0      10.0         80.0",
    ]


def classes(*shares: float) -> dict[str, float]:
    found: dict[str, float] = bounded("data/top1", 0.5)
    found |= {"data/count": 100.0, "data/skipped": 2.0, "data/classes": float(len(shares) + 1)}
    for number, share in enumerate(shares):
        found |= bounded(f"data/class/class {number}/top1", share) | {f"data/class/class {number}/count": 4.0}
    return found


def test_the_weakest_classes_stand_below_weakest_first() -> None:
    figures = classes(0.5, 0.25, 1.0, 0.75, 0.25, 0.5, 0.5)
    figures |= {"data/class/class 4/taken_for/red car\n": 0.5}
    of_task, weakest = tables(figures)
    assert [line[0] for line in cells(of_task) if line[0].startswith("data")] == ["data/top1"]
    assert shown(weakest) == [
        "           data: 100 images of 8 classes, 2 skipped",
        "  weakest classes       right, %   images   most taken for, %",
        " ─────────────────────────────────────────────────────────────",
        "  class 1           25.0 (21–32)        4",
        "  class 4           25.0 (21–32)        4   red car\\n 50.0",
        "  class 0           50.0 (46–57)        4",
        "  class 5           50.0 (46–57)        4",
        "  class 6           50.0 (46–57)        4",
    ]


def test_numbers_as_they_are_written() -> None:
    metrics = bounded("a/t2i_r1", 0.5) | bounded("a/t2i_r5", 0.5) | {"a/i2t_r1": 0.256}
    assert interval(metrics, "a/t2i_r1") == percent(metrics, "a/t2i_r1") == "50.0 (46–57)"
    assert percent(metrics, "a/t2i_r5") == "50.0"
    assert percent(metrics, "a/i2t_r1") == "25.6"
    assert percent(metrics, "a/none") == interval(metrics, "a/none") == ""


def test_a_figure_whose_name_has_parts_stands_beside_its_own_control() -> None:
    figures = {}
    for name, value in (("data/first/accuracy", 0.75), ("data/blind/first/accuracy", 0.25)):
        figures |= {name: value, f"{name}_low": value - 0.05, f"{name}_high": value + 0.05}
    (line,) = [line for line in cells(task_table(figures)) if "75.0" in line]
    assert line[-4:] == ["75.0", "(70–80)", "25.0", "(20–30)"]
