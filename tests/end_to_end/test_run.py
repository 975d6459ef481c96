"""The commands as a user types them, on toys: train, evaluate, info, export, index, search, own data, bad input."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy
from albef.cli import main
from albef.config import DataConfig, TaskConfig, TaskName, UserError
from albef.recipe import dump_config
from albef.run import run
from albef.train.start import choose_tokenizer

ROOT = Path(__file__).parent.parent.parent
METRICS = {
    f"test/{score}/{way}_r{k}" for score in ("itc", "itm") for way in ("t2i", "i2t") for k in (1, 5, 10)
}


@pytest.fixture(autouse=True)
def keep_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that went from training to its report."""
    folder = tmp_path_factory.mktemp("runs") / "toy"
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(dump_config(toy.config()))
    main(["train", str(recipe), "--out", str(folder)])
    return folder


def test_a_run_leaves_everything_that_is_promised(finished: Path) -> None:
    for name in (
        "config.yaml",
        "log.jsonl",
        "metrics.json",
        "model/config.json",
        "report.html",
        "checkpoints",
    ):
        assert (finished / name).exists(), name
    metrics = json.loads((finished / "metrics.json").read_text())
    assert metrics.keys() >= METRICS
    assert {"train/seconds", "train/pairs_per_second", "train/steps"} <= metrics.keys()
    assert all(0 <= metrics[name] <= 1 for name in METRICS)


def test_evaluate_repeats_the_figures_of_the_run(finished: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "metrics.json"
    command = ["evaluate", str(finished), "--split=test", "--count=12", "--top-k=4", "--json", str(file)]
    main(command)
    again, first = (json.loads(path.read_text()) for path in (file, finished / "metrics.json"))
    for name in METRICS:
        assert again[name] == first[name]


def test_a_finished_run_is_resumed_by_its_folder_alone(finished: Path) -> None:
    before = (finished / "log.jsonl").read_text()
    main(["train", "--resume", str(finished), "--train.log_every_steps=2"])
    assert (finished / "log.jsonl").read_text() == before
    assert "train.log_every_steps" in (finished / "changes.jsonl").read_text()
    main(["train", "--resume", str(finished), "--train.log_every_steps=1"])
    main(["verify", str(finished)])


def test_info_of_the_run_and_of_a_size(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["info", str(finished), "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["image_size"] == toy.MODEL.image_size
    main(["info", "base", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert (facts["trainable_parameters"], facts["state_dict_keys"]) == (209_937_725, 844)


def test_export_train_on_it_index_and_search(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures, index = tmp_path / "pictures", tmp_path / "index"
    main(["data", "export", "pictograms", "--count=8", "--image-size=32", "--out", str(pictures)])
    rows = json.loads((pictures / "train.json").read_text())
    assert len(rows) == 8
    assert all((pictures / row["image"]).exists() and row["caption"] for row in rows)
    main(["index", str(finished), str(pictures), "--out", str(index)])
    capsys.readouterr()
    main(["search", str(index), "a fox", "-k", "3"])
    assert "Contact sheet" in capsys.readouterr().out
    with Image.open(tmp_path / "index-search.png") as sheet:
        assert sheet.width > 100
    main(
        [
            "search",
            str(index),
            str(pictures / rows[2]["image"]),
            "-k",
            "1",
            "--out",
            str(tmp_path / "same.png"),
        ]
    )
    assert Path(rows[2]["image"]).name in capsys.readouterr().out


def test_own_data_with_broken_ones_among_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for number in range(12):
        noise = np.random.default_rng(number).integers(0, 255, (24, 24, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": [f"picture {number}", "noise"], "image_id": number})
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:60])
    rows[5]["caption"] = " "
    (tmp_path / "own.json").write_text(json.dumps(rows))
    data = dataclasses.replace(
        toy.config().data,
        source=str(tmp_path / "own.json"),
        validation=str(tmp_path / "own.json"),
        max_bad_fraction=0.2,
    )
    config = dataclasses.replace(toy.config(), data=data)
    run(config, tmp_path / "run")
    listed = [json.loads(line) for line in (tmp_path / "run" / "bad_samples.jsonl").read_text().splitlines()]
    assert {line["origin"] for line in listed} == {"own.json, row 4", "own.json, row 6"}
    assert (tmp_path / "run" / "report.html").exists()
    main(["evaluate", str(tmp_path / "run"), "--top-k=4", "--json", str(tmp_path / "again.json")])
    again, first = (
        json.loads(file.read_text()) for file in (tmp_path / "again.json", tmp_path / "run" / "metrics.json")
    )
    assert again["data/skipped"] == 1
    assert again == {name: value for name, value in first.items() if not name.startswith("train/")}
    recipe = tmp_path / "run" / "config.yaml"
    recipe.write_text(recipe.read_text().replace(f"validation: {tmp_path}/own.json", "validation: ''"))
    with pytest.raises(SystemExit, match="2"):
        main(["evaluate", str(tmp_path / "run")])
    assert "Name the data to measure on with --data" in capsys.readouterr().err
    strict = dataclasses.replace(config, data=dataclasses.replace(data, max_bad_fraction=0.01))
    with pytest.raises(UserError, match=r"max_bad_fraction.*bad_samples\.jsonl"):
        run(strict, tmp_path / "strict")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "{run}/config.yaml", "--out", "{run}", "--train.seed=5"], "train.seed: 42 → 5"),
        (["train", "--resume", "{run}", "--data.count=25"], "data.count: 24 → 25"),
        (["train", "--resume", "{tmp}"], "holds no run"),
        (["train", "--resume", "{run}", "--out", "{tmp}"], "leave out --out"),
        (["train"], "a recipe or --resume RUN"),
        (["train", "{run}/config.yaml", "--out", "{tmp}"], "not empty and holds no run"),
        (
            ["train", "{run}/config.yaml", "--out", "{tmp}/new", "--data.source={tmp}/none.json"],
            "no such file",
        ),
        (["evaluate", "{tmp}"], "config.json"),
        (["evaluate", "{run}", "--data={tmp}/none.csv"], "no such file"),
        (["evaluate", "{run}", "--split=tset"], "no split 'tset'"),
        (
            ["evaluate", "{run}", "--json={tmp}/something.txt/x.json"],
            "can't be written: a part of the path is a file",
        ),
        (["info", "bsae"], "bsae"),
        (["info", "{tmp}"], "config.json: No such file or directory. Give a finished run"),
        (["index", "{run}", "{tmp}/nowhere", "--out", "{tmp}/index"], "no such file or folder"),
        (["search", "{tmp}", "a fox"], "index"),
        (["data", "export", "pictograms", "--num-nouns=9999", "--out", "{tmp}/x"], "nouns"),
    ],
)
def test_mistakes_end_with_a_sentence_and_status_2(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "something.txt").write_text("here")
    with pytest.raises(SystemExit) as stopped:
        main([argument.format(run=finished, tmp=tmp_path) for argument in arguments])
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("task", "said"), [("pretrain", "has no data.validation"), ("text_assignment", "prepares for nlvr")]
)
def test_own_data_without_validation_get_a_sentence_and_no_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], task: TaskName, said: str
) -> None:
    rng, rows = np.random.default_rng(0), []
    for number in range(8):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": f"a fox {number}"})
    (tmp_path / "train.json").write_text(json.dumps(rows))
    config = toy.config(
        task=TaskConfig(name=task, queue_size=10, alpha_ramp_steps=4),
        data=DataConfig(source=str(tmp_path / "train.json"), randaugment=False),
    )
    run(config, tmp_path / "run")
    told = " ".join(capsys.readouterr().out.split())
    assert said in told
    assert "with its image" not in told
    assert {name.split("/")[0] for name in json.loads((tmp_path / "run" / "metrics.json").read_text())} == {
        "train"
    }


def test_a_learnt_vocabulary_has_the_answers_too(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "question": "is it red?", "answer": "zebra"}]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    config = toy.config(task=TaskConfig(name="vqa"), data=DataConfig(source=str(tmp_path / "rows.json")))
    config = dataclasses.replace(config, model=dataclasses.replace(config.model, vocab_size=200))
    tokenizer = choose_tokenizer(config)
    assert tokenizer.pieces(tokenizer.encode("zebra", 10, False)) == ["[CLS]", "zebra"]
