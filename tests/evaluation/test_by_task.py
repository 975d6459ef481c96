"""What is measured of which task: the model that can be asked, the splits, the blind control, the notes."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toy
from albef.config import DataConfig, TaskName, UserError
from albef.data.records import Record
from albef.data.sources import Source
from albef.engine import Engine
from albef.evaluation import by_task
from albef.evaluation.by_task import (
    MEASURED,
    Asked,
    Measured,
    evaluate_on,
    evaluate_task,
    facts_of,
    protocol_of,
    task_of,
)
from albef.evaluation.vqa import Asking
from albef.model_directory import Trained

ASKING = Asking(["yes", "no"], k=2)
HEADS: dict[TaskName, str] = {
    "pretrain": "contrast", "retrieval": "contrast", "vqa": "answer", "entailment": "entailment", "nlvr": "nlvr",
    "grounding": "itm", "text_assignment": "text_assignment",
}  # fmt: skip


class Pictures:
    """Records of grey pictures, all the same or each another one."""

    couple, notes = 1, ("A note on the data.",)

    def __init__(self, *greys: int) -> None:
        self.greys = greys

    def __len__(self) -> int:
        return len(self.greys)

    def record(self, index: int, epoch: int) -> Record:
        assert epoch == 0
        grey = self.greys[index]
        return Record(Path(f"{grey}.png"), ("a fox",), grey, None, "here")


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Gets the name and the control of every call to judge questions."""
    calls: list[tuple[str, bool]] = []

    def judge(
        engine: Engine, source: Source, name: str, asked: Asked, shuffled: bool
    ) -> Iterator[tuple[str, float]]:
        calls.append((name, shuffled))
        yield f"{name}/accuracy", 0.25 if shuffled else 0.5

    monkeypatch.setitem(MEASURED, "vqa", Measured(("answer",), judge))
    return calls


@pytest.mark.parametrize(("task", "head"), HEADS.items())
def test_a_model_without_the_head_is_not_asked(task: TaskName, head: str) -> None:
    other = "nlvr" if head != "nlvr" else "entailment"
    with pytest.raises(UserError, match=f"trained for {other}, not for {task}"):
        evaluate_on(
            toy.engine(other), DataConfig(source=f"pictograms:{task}"), ["test"], 0, Asked(task, ASKING)
        )


def test_every_split_is_measured_beside_its_control(judged: list[tuple[str, bool]]) -> None:
    data, engine = DataConfig(source="pictograms:vqa", count=4), toy.engine("answer")
    found = evaluate_on(engine, data, ["test", "unseen_vendor"], 0, Asked("vqa", ASKING))
    assert found == {
        "test/accuracy": 0.5,
        "test/blind/accuracy": 0.25,
        "unseen_vendor/accuracy": 0.5,
        "unseen_vendor/blind/accuracy": 0.25,
    }
    assert judged == [
        ("test", False),
        ("test/blind", True),
        ("unseen_vendor", False),
        ("unseen_vendor/blind", True),
    ]


def test_the_control_needs_another_picture(judged: list[tuple[str, bool]]) -> None:
    engine, asked = toy.engine("answer"), Asked("vqa", ASKING)
    assert evaluate_task(engine, Pictures(1, 2), "x", asked) == {"x/accuracy": 0.5, "x/blind/accuracy": 0.25}
    assert evaluate_task(engine, Pictures(1, 1), "x", asked) == {"x/accuracy": 0.5}
    alone = Asked("vqa", ASKING, blind_alone=True)
    assert evaluate_task(engine, Pictures(1, 2), "x", alone) == {"x/blind/accuracy": 0.25}


def test_recalls_come_with_their_control(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def pairs(*given: object) -> Iterator[tuple[str, float]]:
        asked.append(given[2:])
        yield from (("x/itc/t2i_r1", 0.5), ("x/blind/itc/t2i_r1", 0.1), ("x/pictures", 2.0))

    monkeypatch.setattr(by_task, "evaluate_pairs", pairs)
    monkeypatch.setattr(by_task, "evaluate_pictograms", pairs)
    engine, source = toy.engine(), Pictures(1, 2)
    everything = {"x/itc/t2i_r1": 0.5, "x/blind/itc/t2i_r1": 0.1, "x/pictures": 2.0}
    blind = {"x/blind/itc/t2i_r1": 0.1}
    for task in ("pretrain", "retrieval"):
        whole, alone = Asked(task, ASKING), Asked(task, ASKING, blind_alone=True)
        assert evaluate_task(engine, source, "x", whole) == everything
        assert evaluate_task(engine, source, "x", alone) == blind
        data = DataConfig(source="pictograms", count=7, num_nouns=9)
        assert evaluate_on(engine, data, ["test"], 5, whole) == everything
        assert evaluate_on(engine, data, ["test"], 5, alone) == blind
    assert asked[0] == (2, "x", 0)
    assert asked[2] == (5, 7, 9, 2, 0)


def test_own_data_are_called_data_and_their_notes_are_told(
    judged: list[tuple[str, bool]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    opened: list[tuple[object, ...]] = []
    monkeypatch.setattr(by_task, "open_source", lambda *given: opened.append(given[1:]) or Pictures(1, 2))
    engine = toy.engine("answer")
    found = evaluate_on(engine, DataConfig(source="mine.json"), ["unseen_vendor"], 3, Asked("vqa", ASKING))
    assert set(found) == {"data/accuracy", "data/blind/accuracy"}
    assert opened == [("test", 3, engine.config.image_size, "vqa")]
    told = capsys.readouterr()
    assert (told.out, told.err) == ("", "A note on the data.\n")


def test_nothing_is_measured_of_text_assignment() -> None:
    assert [task for task, measured in MEASURED.items() if measured.in_task] == ["text_assignment"]
    assert MEASURED["text_assignment"].in_task == "nlvr"
    assert evaluate_task(toy.engine(), Pictures(1, 2), "x", Asked("text_assignment", ASKING)) == {}


@pytest.mark.parametrize(
    ("heads", "task"),
    [
        (("contrast", "itm", "mlm"), "retrieval"),
        (("answer",), "vqa"),
        (("entailment",), "entailment"),
        (("nlvr",), "nlvr"),
        (("contrast",), "retrieval"),
        (("itm",), "retrieval"),
        (("mlm",), "retrieval"),
    ],
)
def test_the_task_of_a_model_follows_from_its_heads(heads: tuple[str, ...], task: TaskName) -> None:
    engine = toy.engine(*heads)
    assert task_of(engine) == task
    engine.trained = Trained("pretrain", "4m.json")
    assert task_of(engine) == "pretrain"


def test_a_protocol_is_told_of_retrieval_alone() -> None:
    engine = toy.engine()
    engine.trained = Trained("pretrain", "pretrain_4m.jsonl")
    for task in ("pretrain", "retrieval"):
        found = protocol_of(engine, task, "flickr30k_test.json")
        assert found is not None
        assert facts_of(found) == {"protocol": "direct", "protocol_in_words": found.sentence}
    for task in ("vqa", "entailment", "nlvr", "grounding", "text_assignment", "classes"):
        assert protocol_of(engine, task, "flickr30k_test.json") is None
    assert facts_of(None) == {}


def test_the_results_of_questions_are_those_with_their_pictures(tmp_path: Path) -> None:
    file, engine = tmp_path / "answers.json", toy.engine("answer")
    data = DataConfig(source="pictograms:vqa", count=3)
    evaluate_on(engine, data, ["test"], 0, Asked("vqa", ASKING, results=file))
    seen = file.read_text()
    assert len(np.unique([line for line in seen.splitlines() if "question_id" in line])) == 3
    evaluate_on(
        engine, data, ["test"], 0, Asked("vqa", ASKING, blind_alone=True, results=tmp_path / "blind.json")
    )
    assert not (tmp_path / "blind.json").exists()


def test_a_list_without_the_answers_of_the_data_is_refused(tmp_path: Path) -> None:
    engine, asked = toy.engine("answer"), Asked("vqa", Asking(["an aardvark"], k=2))
    data = DataConfig(source="pictograms:vqa", count=3)
    assert evaluate_on(engine, data, ["test"], 0, asked)["test/accuracy"] == 0
    with pytest.raises(UserError, match="has none of the answers of the data"):
        evaluate_on(
            engine, DataConfig(source="pictograms:vqa", count=3, answer_list="list.json"), ["test"], 0, asked
        )


def test_own_pairs_are_ranked_beside_their_control(tmp_path: Path) -> None:
    rows = []
    for number in range(3):
        Image.new("RGB", (16, 16), (80 * number, 20, 90)).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": toy.CAPTIONS[number]})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    data, engine = DataConfig(source=str(tmp_path / "rows.json")), toy.engine("contrast", "itm")
    found = evaluate_on(engine, data, ["test"], 0, Asked("retrieval", ASKING))
    assert {"data/sum/t2i_r1", "data/blind/sum/t2i_r1"} <= set(found)
    blind = evaluate_on(engine, data, ["test"], 0, Asked("retrieval", ASKING, blind_alone=True))
    assert blind == {name: value for name, value in found.items() if "/blind/" in name}
