"""The tasks as a user types them, on toys: evaluate, predict, and what bad input says."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy
from albef.cli import main
from albef.config import Config, DataConfig, EvaluateConfig, TaskConfig, TaskName, TrainConfig
from albef.data.text import Tokenizer
from albef.evaluation.by_task import Asked
from albef.model.albef import ALBEF
from albef.model_directory import Trained, save_model
from albef.recipe import dump_config
from albef.run import run

Rows = list[dict[str, object]]


@pytest.fixture(autouse=True)
def keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def model_in(folder: Path, *heads: str, trained: Trained | None = None) -> str:
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(toy.CAPTIONS, toy.ENGINE_MODEL.vocab_size)
    save_model(folder / "model", ALBEF(toy.ENGINE_MODEL, heads), tokenizer, "", ["yes", "no"], trained)
    return str(folder / "model")


def pictures(folder: Path, count: int = 4) -> list[str]:
    rng = np.random.default_rng(0)
    for number in range(count):
        Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    return [f"{number}.png" for number in range(count)]


def written(folder: Path, rows: Rows, name: str = "rows.json") -> str:
    (folder / name).write_text(json.dumps(rows))
    return str(folder / name)


def test_zero_shot_is_named_on_the_screen_and_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: Rows = [{"image": name, "caption": ["a fox", "a red fox"]} for name in pictures(tmp_path)]
    data, file = written(tmp_path, rows, "flickr30k_test.json"), tmp_path / "metrics.json"
    for trained, name in (
        (Trained("pretrain", "pretrain_4m.json"), "direct"),
        (Trained("retrieval", "coco_train.json"), "transferred"),
    ):
        model = model_in(tmp_path, "contrast", "itm", trained=trained)
        main(["evaluate", model, "--data", data, "--task=retrieval", "--k-test=2", "--json", str(file)])
        metrics = json.loads(file.read_text())
        assert metrics["protocol"] == name
        assert f"Zero-shot, {name}" in " ".join(capsys.readouterr().out.split())
        for end in ("", "_low", "_high"):
            assert f"data/itm/t2i_r5{end}" in metrics
            assert f"data/blind/itc/r_mean{end}" in metrics
    main(["evaluate", model, "--data", data, "--task=retrieval", "--shuffle-images", "--json", str(file)])
    found = [name for name in json.loads(file.read_text()) if not name.startswith("protocol")]
    assert found
    assert all(name.startswith("data/blind/") for name in found)


def test_predict_ranks_pictures_for_a_text_and_texts_for_a_picture(tmp_path: Path) -> None:
    names, file = [str(tmp_path / name) for name in pictures(tmp_path)], tmp_path / "found.json"
    model = model_in(tmp_path, "contrast", "itm")
    main(["predict", "retrieval", model, "a fox", *names, "-k", "3", "--json", str(file)])
    found = json.loads(file.read_text())
    assert len(found) == 3
    assert set(found) < set(names)
    assert list(found.values()) == sorted(found.values(), reverse=True)
    main(["predict", "retrieval", model, names[0], "a fox", "two red cars", "--json", str(file)])
    assert set(json.loads(file.read_text())) == {"a fox", "two red cars"}


def test_answers_are_ranked_as_published_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Asked] = []
    monkeypatch.setattr("albef.evaluation.by_task.evaluate_on", lambda *given: asked.append(given[-1]) or {})
    model = model_in(tmp_path, "answer")
    main(["evaluate", model])
    main(["evaluate", model, "--count-first-token-twice"])
    config = Config(task=TaskConfig(name="vqa", count_first_token_twice=True))
    (tmp_path / "config.yaml").write_text(dump_config(config))  # of the run whose model it is
    main(["evaluate", model])
    assert [one.asking.count_first_token_twice for one in asked] == [False, True, True]


def test_confusion_is_shown_with_its_control(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = ("contradiction", "neutral", "entailment", "neutral")
    rows: Rows = [
        {"image": name, "sentence": "a fox", "label": label}
        for name, label in zip(pictures(tmp_path), labels, strict=True)
    ]
    main(["evaluate", model_in(tmp_path, "entailment"), "--data", written(tmp_path, rows)])
    shown = capsys.readouterr().out
    assert "data: answered, out of 100" in shown
    assert "data/blind: answered, out of 100" in shown


@pytest.mark.parametrize("task", ["vqa", "entailment", "nlvr", "grounding", "retrieval", "text_assignment"])
def test_every_task_ends_with_a_report(tmp_path: Path, task: TaskName) -> None:
    source = "pictograms" if task == "text_assignment" else f"pictograms:{task}"
    data = DataConfig(source=source, count=8, crop_scale=(1.0, 1.0), flip=False, randaugment=False)
    train = TrainConfig(steps=2, batch_size=4, warmup_steps=1, precision="fp32", log_every_steps=1)
    evaluate = EvaluateConfig(splits=("test",), count=6, top_k=4)
    config = Config(toy.MODEL, data, TaskConfig(name=task, queue_size=0), train, evaluate)
    run(config, tmp_path / "run")
    html = (tmp_path / "run" / "report.html").read_text("utf-8")
    assert "http" not in html
    if task == "text_assignment":
        return
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert any("/blind/" in name for name in metrics)
    expected = {"grounding": ("Found", "Missed"), "retrieval": ("From text to images", "blind")}
    for words in expected.get(task, ("Right answers", "Wrong answers", "blind: ")):
        assert words in html
    pictures_shown = html.count("<img")
    assert pictures_shown >= (12 if task == "nlvr" else 6)


QUESTION = {"image": "0.png", "question": "how many", "answer": ["2", "2"], "question_id": 1}


@pytest.mark.parametrize(
    ("heads", "row", "arguments", "message"),
    [
        (("entailment",), {"image": "0", "sentence": "a", "label": "maybe"}, [], 'row 1: "label" is "maybe"; it must'),
        (("entailment",), {"image": "0", "label": "neutral"}, [], 'row 1: the key "sentence" is missing'),
        (("nlvr",), {"images": ["0.png"], "sentence": "a", "label": "True"}, [], "two images, found 1; write"),
        (("nlvr",), {"images": "0.png", "sentence": "a", "label": "True"}, [], 'row 1: "images" must name two'),
        (("answer",), QUESTION, ["--answers={tmp}/list.json"], "list.json: has none of the answers of the data"),
        (("answer",), QUESTION, ["--answers={tmp}/none.json"], "none.json: cannot be read as a JSON list"),
        (("answer",), QUESTION, ["--task=nlvr"], "trained for answer, not for nlvr"),
        (
            ("contrast", "itm"),
            {"image": "0.png", "text": "a", "box": [0, 0, 9, 9]},
            ["--task=grounding", "--detections={tmp}/boxes.json"],
            "boxes.json: has no boxes for the image of rows.json, row 1",
        ),
        (("contrast", "itm"), {"image": "0.png", "text": "a"}, ["--task=grounding"], 'phrases has a "box"'),
        (
            ("contrast", "itm"),
            {"image": "1.png", "text": "a", "box": [0, 0, 9, 9]},
            ["--task=grounding", "--detections={tmp}/boxes.json"],
            "row 1: the proposed box [40, 0, 9, 9] reaches 19 pixels beyond the image",
        ),
        (
            ("contrast", "itm"),
            {"image": "1.png", "text": "a", "box": [0, 0, 9, 9]},
            ["--task=grounding", "--layer=7"],
            "no fusion layer 7. Choose one from 0 to 1",
        ),
        (("contrast",), {"image": "0.png", "caption": "a"}, ["--task=vqa"], "trained for contrast, not for vqa"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_a_sentence_and_status_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    heads: tuple[str, ...],
    row: dict[str, object],
    arguments: list[str],
    message: str,
) -> None:
    pictures(tmp_path, 2)
    (tmp_path / "list.json").write_text('["a cat"]')
    (tmp_path / "boxes.json").write_text(json.dumps({"1": [[0, 0, 9, 9], [40, 0, 9, 9]]}))
    file = tmp_path / "metrics.json"
    command = [
        "evaluate",
        model_in(tmp_path, *heads),
        "--data",
        written(tmp_path, [row]),
        "--json",
        str(file),
    ]
    with pytest.raises(SystemExit) as stopped:
        main([*command, *(argument.format(tmp=tmp_path) for argument in arguments)])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in error
    assert error.count("\n") == 1
    assert not file.exists()


def test_a_wrong_answer_list_stops_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path, 1)
    (tmp_path / "list.json").write_text('["a cat"]')
    data = DataConfig(source=written(tmp_path, [QUESTION]), answer_list=str(tmp_path / "list.json"))
    recipe = tmp_path / "vqa.yaml"
    recipe.write_text(dump_config(Config(toy.MODEL, data, TaskConfig(name="vqa", queue_size=0))))
    with pytest.raises(SystemExit) as stopped:
        main(["train", str(recipe), "--out", str(tmp_path / "run")])
    assert stopped.value.code == 2
    assert "list.json: has none of the answers of the data, such as '2'" in capsys.readouterr().err
    assert not (tmp_path / "run" / "log.jsonl").exists()
