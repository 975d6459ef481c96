"""What a run would fail for at its end is found out before it trains."""

import dataclasses
import json
from pathlib import Path

import pytest

import toy
from albef import run as run_module
from albef.config import Config, EvaluateConfig, TaskConfig, TrainConfig, UserError
from albef.engine import Engine
from albef.run import prepare, run


def asking(task: TaskConfig | None = None, **settings: object) -> Config:
    found = toy.config(task=task)
    return dataclasses.replace(found, evaluate=dataclasses.replace(found.evaluate, **settings))


def test_splits_that_there_are_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no split 'tset'"):
        prepare(asking(splits=("test", "tset")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_scenes_without_the_boxes_that_grounding_is_measured_by(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"set data\.source=pictograms:grounding"):
        prepare(asking(TaskConfig(name="grounding")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_layers_that_there_are_not() -> None:
    with pytest.raises(UserError, match=r"layer is 2, but model\.fusion_depth is 2"):
        asking(TaskConfig(name="grounding"), layer=2)


def test_the_file_to_evaluate_on_is_opened(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.json"
    pairs.write_text(json.dumps([{"image": "a.jpg", "caption": "a fox"}] * 9))
    data = dataclasses.replace(toy.config().data, source=str(pairs), validation=str(tmp_path / "val.json"))
    with pytest.raises(UserError, match=r"val\.json: no such file"):
        prepare(toy.config(data=data), tmp_path / "run")
    (tmp_path / "val.json").write_text(json.dumps([{"image": "a.jpg"}]))
    with pytest.raises(UserError, match='"caption" is missing'):
        prepare(toy.config(data=data), tmp_path / "run")
    prepare(toy.config(data=dataclasses.replace(data, validation=str(pairs))), tmp_path / "run")


def test_the_model_is_evaluated_where_it_was_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def load(source: Path, device: str = "auto", quiet: bool = False, regions: str = "") -> Engine:
        asked.append(device)
        return toy.engine()

    monkeypatch.setattr(Engine, "load", load)
    monkeypatch.setattr(run_module, "evaluate", lambda *_: {})
    for step in ("train", "export", "conclude"):
        monkeypatch.setattr(run_module, step, lambda *_: None)
    train = TrainConfig(steps=1, batch_size=4, device="cpu")
    run(
        dataclasses.replace(toy.config(train=train), evaluate=EvaluateConfig()),
        tmp_path / "run",
        report=False,
    )
    assert asked == ["cpu"]
