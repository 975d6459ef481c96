"""Zero-shot classification as a user types it: the figures, the file, the templates, and what bad input says."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toy
from albef.cli import main
from albef.engine import Engine
from albef.engine.zero_shot import openai_templates
from albef.model_directory import save_model


def model_in(folder: Path, *heads: str) -> str:
    engine = toy.engine(*heads)
    save_model(folder / "model", engine.model, engine.tokenizer, "")
    return str(folder / "model")


def images_in(folder: Path, *names: str) -> None:
    rng = np.random.default_rng(len(names))
    for name in names:
        (folder / name).mkdir(parents=True)
        for number in range(2):
            pixels = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    images_in(tmp_path / "data", "fox", "red_car", "house")
    return tmp_path / "data"


def evaluated(model: str, data: Path, *options: str) -> dict[str, float]:
    """The figures that the command writes."""
    file = data.parent / "figures.json"
    main(["evaluate", model, "--task=classes", "--data", str(data), "--json", str(file), *options])
    return json.loads(file.read_text())


def test_figures_are_shown_and_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images_in(tmp_path / "data", "tree", "snow", "grass")
    (data / "tree" / "0.png").write_bytes(b"<html>")
    (data / "nothing").mkdir()
    found = evaluated(model_in(tmp_path), data)
    assert (found["data/count"], found["data/skipped"], found["data/classes"]) == (11, 1, 6)
    assert {f"data/{name}" for name in ("top1", "top5", "top1_low", "blind/top1", "blind/top5")} <= set(found)
    assert found["data/class/red car/count"] == 2
    shown = capsys.readouterr()
    assert "folders without images (1): nothing." in shown.err
    lines = [" ".join(line.split()) for line in shown.out.splitlines()]
    assert any(line.startswith("data/top1 ") for line in lines)
    assert any(line.startswith("data/top5 ") for line in lines)
    assert any("11 images of 6 classes, 1 skipped" in line for line in lines)
    weakest = [
        line for line in lines if line.split(" ")[0] in ("fox", "red", "house", "tree", "snow", "grass")
    ]
    assert len(weakest) == 5


def test_the_control_can_be_measured_alone(data: Path, tmp_path: Path) -> None:
    found = evaluated(model_in(tmp_path), data, "--shuffle-images")
    assert set(found) == {"data/blind/top1", "data/blind/top1_low", "data/blind/top1_high"}


def test_templates_are_those_of_the_file_or_openais(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, said = Engine.text_features, []

    def text_features(engine: Engine, texts: list[str]) -> np.ndarray:
        said.append(list(texts))
        return encode(engine, texts)

    monkeypatch.setattr(Engine, "text_features", text_features)
    (tmp_path / "templates.txt").write_text("a {}\ntwo {}s\n")
    model = model_in(tmp_path)
    assert evaluated(model, data)["data/templates"] == 1
    assert evaluated(model, data, f"--templates={tmp_path}/templates.txt")["data/templates"] == 2
    assert evaluated(model, data, "--templates=openai")["data/templates"] == 80
    assert said[0] == ["a photo of a fox.", "a photo of a house.", "a photo of a red car."]
    assert said[1] == ["a fox", "two foxs", "a house", "two houses", "a red car", "two red cars"]
    assert said[2][:80] == [template.format("fox") for template in openai_templates()]


@pytest.mark.parametrize(
    ("heads", "options", "message"),
    [
        (("answer",), "--data {data}", "trained for answer. It has no features .* use a model trained with ITC"),
        (("contrast",), "", r"Task classes has no default data: give a folder .*\(--data"),
        (("contrast",), "--data pictograms", "pictograms: .* no classes; give a folder"),
        (("contrast",), "--data {data}/fox", "has 0 folders with images"),
        (("contrast",), "--data {data}/fox/0.png", "Not a directory"),
        (("contrast",), "--data {data} --templates {data}/none.txt", "none.txt: cannot be read"),
        (("contrast",), "--data {data} --templates {data}/../bad.txt", r"bad.txt: 'a photo' has no \{\}"),
        (("contrast",), "--data {data} --image-root {data}", "--image-root has no effect on the folder"),
        (("contrast",), "--data {data} --strip-prefix a", "--strip-prefix has no effect on the folder"),
        (("contrast",), "--data {data} --count 3", "--count has no effect"),
        (("contrast",), "--data {data} --layer 1", "--layer is for the task grounding"),
        (("contrast",), "--data {data} --task retrieval --templates openai", "--templates is for the task classes"),
        (("contrast",), "--data {data} --json {data}/../bad.txt --templates {data}/../bad.txt", "read by this command"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_a_sentence_and_status_2(
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    heads: tuple[str, ...],
    options: str,
    message: str,
) -> None:
    (tmp_path / "bad.txt").write_text("a {}\na photo\n")
    with pytest.raises(SystemExit) as stopped:
        main(["evaluate", model_in(tmp_path, *heads), "--task=classes", *options.format(data=data).split()])
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said.count("\n") == 1
    assert re.search(message, said), said


def test_classes_are_nothing_to_train_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "recipes/quickstart.yaml", "--task.name=classes", "--out", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert "task.name" in (said := capsys.readouterr().err)
    assert "one of pretrain, " in said
