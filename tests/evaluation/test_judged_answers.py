"""Answers to questions that are given, so that every figure, and the file for the server, can be told by hand."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import toy
from albef.config import DataConfig, UserError
from albef.data.records import Record
from albef.data.sources import open_source
from albef.engine import Engine
from albef.evaluation import vqa
from albef.evaluation.metrics import interval
from albef.evaluation.vqa import Asking, check_answers, evaluate_vqa, frequent_answers, judge_answers

Answers = Sequence[str]


class Questions:
    """Questions with the answers that people gave, each about a picture of its own."""

    couple, notes = 1, ()

    def __init__(self, *given: Answers, official: bool = False, key: str = "{}") -> None:
        self.given, self.official, self.key = given, official, key

    def __len__(self) -> int:
        return len(self.given)

    def record(self, index: int, epoch: int) -> Record:
        assert epoch == 0
        return Record(
            np.full((16, 16, 3), index % 256, np.uint8), ("what is it",), index // 2, None, f"row {index}",
            answers=tuple(self.given[index]), key=self.key.format(index), official=self.official,
        )  # fmt: skip


def answering(monkeypatch: pytest.MonkeyPatch, ranked: Answers, written: Answers) -> Engine:
    """An engine that answers the questions like this, one after the other."""
    engine = toy.engine("answer")
    chances = {"ranked": iter(ranked), "written": iter(written)}
    monkeypatch.setattr(engine, "question_memory", lambda questions, pixels: len(questions))

    def ranked_answers(memory: int, *asked: object) -> list[list[tuple[str, float]]]:
        assert asked == (["red", "2"], 5, False)
        return [[(next(chances["ranked"]), 0.75), ("never", 0.25)] for _ in range(memory)]

    def written_answers(memory: int, beams: int) -> list[list[tuple[str, float]]]:
        assert beams == 3
        return [[(next(chances["written"]), 0.5), ("never", 0.25)] for _ in range(memory)]

    monkeypatch.setattr(engine, "ranked_answers", ranked_answers)
    monkeypatch.setattr(engine, "written_answers", written_answers)
    return engine


ASKING = Asking(["red", "2"], k=5, beams=3)
FREE = Asking([], k=5, beams=3)


def test_what_is_said_of_each_question(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = answering(monkeypatch, ["red", "2"], ["a fox", "two"])
    source = Questions(["red"] * 8 + ["blue"] * 2, ["3", "2", "three"])
    first, second = judge_answers(engine, source, ASKING, False, {})
    assert list(first) == list(second) == ["ranked", "open"]
    assert [(one.index, one.expected, one.answered) for one in first.values()] == [
        (0, "red", "red"),
        (0, "red", "a fox"),
    ]
    assert [(one.score, one.probability, one.cluster) for one in first.values()] == [
        (1.0, 0.75, 0),
        (0.0, 0.5, 0),
    ]
    assert second["ranked"].expected == "3"  # given most often, in one form or another
    assert second["ranked"].score == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert second["open"].score == second["ranked"].score


@pytest.mark.parametrize(("official", "score"), [(True, 0.0), (False, 1.0)])
def test_the_official_data_are_judged_officially(
    official: bool, score: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = answering(monkeypatch, ["two"], ["2"])
    (found,) = judge_answers(engine, Questions(["2"] * 10, official=official), ASKING, False, {})
    assert (found["ranked"].score, found["open"].score) == (score, 1.0)


def test_figures_by_way_and_by_type(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = answering(monkeypatch, ["yes", "2", "red", "no", "2"], ["no", "two", "blue", "no", "red"])
    source = Questions(["yes"], ["2"], ["red"], ["no"], ["red"])
    found = dict(evaluate_vqa(engine, source, ASKING, "x"))
    shares = {name: value for name, value in found.items() if not name.endswith(("_low", "_high"))}
    assert shares == {
        "x/accuracy": 0.8, "x/accuracy_yes_no": 1.0, "x/accuracy_number": 1.0, "x/accuracy_other": 0.5,
        "x/open_accuracy": 0.6, "x/open_accuracy_yes_no": 0.5, "x/open_accuracy_number": 1.0,
        "x/open_accuracy_other": 0.5, "x/count": 5.0, "x/skipped": 0.0,
    }  # fmt: skip
    ends = found["x/open_accuracy_low"], found["x/open_accuracy_high"]
    assert ends == interval((np.array([0, 1, 0, 1, 1]), [0, 0, 1, 1, 2]))


def test_without_a_list_answers_are_written_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    engine, file = answering(monkeypatch, [], ["red", "blue"]), tmp_path / "results.json"
    found = dict(evaluate_vqa(engine, Questions(["red"], ["red"]), FREE, "x", results=file))
    assert found["x/open_accuracy"] == 0.5
    assert "x/accuracy" not in found
    assert [row["answer"] for row in json.loads(file.read_text())] == ["red", "blue"]


def test_the_server_gets_the_ranked_answers_of_every_question(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "results.json"
    engine = answering(monkeypatch, ["red", "2", "red"], ["a", "b", "c"])
    found = dict(evaluate_vqa(engine, Questions(["red"], [], ["2"]), ASKING, "x", results=file))
    expected = [{"question_id": n, "answer": a} for n, a in enumerate(("red", "2", "red"))]
    assert json.loads(file.read_text()) == expected
    assert (found["x/accuracy"], found["x/count"]) == (0.5, 2.0)  # of those that somebody answered
    named = Questions(["red"], ["2"], key="q{}")
    dict(evaluate_vqa(answering(monkeypatch, ["red", "2"], ["", ""]), named, ASKING, "x", results=file))
    assert [row["question_id"] for row in json.loads(file.read_text())] == ["q0", "q1"]
    nameless = Questions(["red"], key="")
    with pytest.raises(UserError, match='row 0: the key "question_id" is missing'):
        dict(evaluate_vqa(answering(monkeypatch, ["red"], ["a"]), nameless, ASKING, "x", results=file))


def test_questions_that_nobody_answered_are_counted_alone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    engine, file = answering(monkeypatch, ["red"] * 2, ["red"] * 2), tmp_path / "results.json"
    found = dict(evaluate_vqa(engine, Questions([], []), ASKING, "x", results=file))
    assert found == {"x/count": 2.0, "x/skipped": 0.0}


def test_frequent_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Questions(["red", "Red"], ["2", "two", "2"], ["blue"])
    assert frequent_answers(source) == ["2", "red", "blue"]
    assert frequent_answers(source, most=2) == ["2", "red"]
    monkeypatch.setattr(vqa, "PAINTED", 1)  # each of them would be painted
    assert frequent_answers(source) == ["red"]
    many = open_source(DataConfig(source="pictograms:vqa", count=50), "train", 0, 16, "vqa")
    assert len(frequent_answers(many)) == 1


def test_a_list_must_have_some_answer_of_the_data() -> None:
    source = Questions([], ["Red"], ["2"])
    check_answers(Path("list.json"), ["the red", "blue"], source)
    check_answers(Path("list.json"), ["blue"], Questions([], []))
    with pytest.raises(UserError, match="such as 'Red'"):  # of many questions the first are enough to tell
        check_answers(Path("list.json"), ["blue"], Questions(*[["Red"]] * 1000, ["blue"]))
    check_answers(Path("list.json"), ["blue"], Questions(*[["Red"]] * 999, ["blue"]))
    with pytest.raises(UserError, match=r"list\.json: has none of the answers of the data, such as 'Red'"):
        check_answers(Path("list.json"), ["blue"], source)


def test_answers_are_written_greedily_and_ranked_by_their_chance_unless_asked_otherwise() -> None:
    assert Asking([], k=1) == Asking([], k=1, beams=1, count_first_token_twice=False)
