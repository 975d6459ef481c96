"""Commands with random options and paths end well or in a sentence: never in an error that nobody foresaw."""

import argparse
import json
import os
import random
from pathlib import Path

import faulty
import numpy as np
import pytest
from PIL import Image

import toy
from albef.cli import build_parser, main
from albef.cli.arguments import leaves
from albef.model_directory import Trained, save_model
from albef.search.index import build_index

CALLS = 2000 if faulty.FULL else 50
HEADS = {"pretrain": (), "vqa": ("answer",), "entailment": ("entailment",), "nlvr": ("nlvr",)}
TEXTS = [
    "a fox",
    "",
    "?!",
    "$_$",
    "a fox $_$",
    "[MASK] fox",
    "é ö Ж",
    "\udce9",
    "a\0b",
    "-1",
    "a" * 5000,
    "two\nlines",
    "{}",
    "%s",
]
NUMBERS = ["0", "1", "2", "3", "12", "-1", "1e400", "nan", "999999999999999999999", "x", "1.5", ""]
PATHS = [
    ".",
    "..",
    "",
    "there-is-none",
    "a/b/c",
    "x.jpg/",
    "sub",
    "n" * 300,
    "\udce9.jpg",
    "a\0b",
    "~",
    "run",
]
SETTINGS = [
    "--train.steps=0",
    "--train.lr=nan",
    "--train.losses=1",
    "--data.source=",
    "--data.source=there is none",
    "--model.image_size=7",
    "--x.y=1",
    "--train.seed=[1, 2",
    "--task.name=vqa",
    "--data.mix={a: b}",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with models, an index, images, tables and things that are none of these."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "sub").mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    for name in ("a.jpg", "b.png", "sub/c.webp", "no-ending"):
        Image.fromarray(pixels).save(
            folder / name, "WEBP" if "webp" in name else "PNG" if "png" in name else "JPEG"
        )
        (folder / name).with_suffix(".txt").write_text("a fox")
    (folder / "broken.jpg").write_bytes((folder / "a.jpg").read_bytes()[:200])
    (folder / "empty.json").touch()
    rows = [{"image": "a.jpg", "caption": "a fox"}, {"image": "b.png", "caption": ["two cars", "cars"]}]
    (folder / "pairs.json").write_text(json.dumps(rows))
    (folder / "pairs.csv").write_text("image,caption\na.jpg,a fox\nb.png,two cars\n")
    (folder / "questions.json").write_text('[{"image": "a.jpg", "question": "why?", "answer": "so"}]')
    (folder / "recipe.yaml").write_text("train: {steps: 1}\n")
    (folder / "odd.yaml").write_text("train: [1\n")
    for task, heads in HEADS.items():
        engine = toy.engine(*heads)
        trained = Trained("pretrain" if task == "pretrain" else task, "pictograms")  # type: ignore[arg-type]
        save_model(folder / f"model-{task}", engine.model, engine.tokenizer, "", ["so", "no"], trained)
    build_index(toy.engine(), [folder / "a.jpg", folder / "b.png"], folder / "idx")
    return folder


def value_for(action: argparse.Action, rng: random.Random, paths: list[str]) -> str:
    """Something for an argument: mostly of its kind, sometimes not."""
    usual = rng.random() < 0.7
    if action.choices and usual:
        return str(rng.choice(list(action.choices)))
    kind = getattr(action.type, "__name__", "")
    if kind == "read":
        return rng.choice(NUMBERS[:5] if usual else NUMBERS)
    if action.dest == "model" and usual:
        return rng.choice([path for path in paths if path.startswith("model")])
    if action.dest == "index" and usual:
        return "idx"
    if kind in ("Path", "output_file") or rng.random() < 0.4:
        return rng.choice(paths)
    return rng.choice(TEXTS)


def command(parser: argparse.ArgumentParser, rng: random.Random, paths: list[str]) -> list[str]:
    """A command with random arguments; trainings are only described."""
    words = parser.prog.split()[1:]
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        times = rng.randint(1, 3) if action.nargs in ("+", "*") else 1
        values = [] if action.nargs == 0 else [value_for(action, rng, paths) for _ in range(times)]
        if not action.option_strings:
            words += values if rng.random() < 0.95 else []
        elif action.required or action.dest == "count" or rng.random() < 0.3:  # by default many are drawn
            words += [rng.choice(action.option_strings), *values]
    if words[0] == "train":
        words += ["--print_config", *rng.sample(SETTINGS, 1)]
    return words


def test_any_command_ends_well_or_in_a_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    monkeypatch.setattr("albef.model_directory.download", no_network)
    parsers = [parser for parser in leaves(build_parser()) if parser.prog != "albef estimate"]
    known = sorted(os.listdir(place))
    seed = int(os.environ.get("ALBEF_SEED", "0"))
    statuses: dict[object, int] = {}
    for number in range(CALLS):
        rng = random.Random(f"{seed} {number}")
        words = command(rng.choice(parsers), rng, known + PATHS)
        try:
            main(words)
            status: object = 0
        except SystemExit as stop:
            status = stop.code or 0
        except Exception as error:
            pytest.fail(f"call {number}: {words}: {error!r}")
        said = capsys.readouterr()
        assert "Traceback" not in said.err, words
        assert status in (0, 2) or (status == 1 and words[0] == "verify"), (number, words, said.err)
        if status == 2:
            assert said.err.strip(), words
        statuses[status] = statuses.get(status, 0) + 1
    assert min(statuses.get(0, 0), statuses.get(2, 0)) > CALLS / 20, statuses
    faulty.TOLD.append(f"{CALLS} random commands: {statuses} by exit status, no traceback")


def no_network(hub_id: str) -> str:
    from albef.config import UserError

    raise UserError(f"{hub_id}: no such folder, and there is no network.")
