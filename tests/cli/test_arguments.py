"""Arguments: every option has a meaning, a range and a default that help shows; what means nothing is refused."""

import argparse
import json
import re
from pathlib import Path

import pytest

import toy
from albef.cli import build_parser, main
from albef.cli.arguments import leaves, meaning_of
from albef.model_directory import save_model

PARSERS = {parser.prog: parser for parser in leaves(build_parser())}


@pytest.mark.parametrize("prog", PARSERS)
def test_help_says_what_every_argument_is_and_its_default(prog: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    parser = PARSERS[prog]
    text = " ".join(parser.format_help().split())
    for action in parser._actions:
        assert action.help, f"{prog} says nothing of {action.dest}"
        if action.option_strings and not action.required and action.default is not argparse.SUPPRESS:
            said = meaning_of(action)
            assert " ".join(said.split()) in text
            assert "(default: " in said
            if action.default not in (None, False, True, "", []):
                assert str(action.default) in said
    assert max(map(len, parser.format_help().splitlines())) <= 80


def test_a_default_of_0_is_shown() -> None:
    assert "random seed of the images (default: 0)" in PARSERS["albef data export"].format_help()


@pytest.mark.parametrize(
    "words",
    [
        "evaluate M --count -5",
        "evaluate M --count 0",
        "evaluate M --count 1e400",
        "evaluate M --seed -1",
        "evaluate M --seed 9223372036854775808",
        "evaluate M --num-nouns -1",
        "evaluate M --top-k 0",
        "evaluate M --beams 99999999999",
        "evaluate M --layer -1",
        "predict vqa M a.jpg why -k -3",
        "predict retrieval M fox a.jpg -k 0",
        "predict grounding M a.jpg fox --layer -2",
        "search I fox -k -3",
        "import a.pth --out M --image-size 0",
        "import a.pth --out M --heads 0",
        "data export pictograms --out D --image-size 0",
        "data export pictograms --out D --count -1",
        "data export pictograms --out D --seed x",
    ],
)
def test_numbers_out_of_range_are_refused_by_name(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words.split())
    assert stop.value.code == 2
    option = [word for word in words.split() if word.startswith("-") and not word[1:].isdigit()][-1]
    said = capsys.readouterr().err
    assert f"{option}" in said
    assert "is less than" in said or "is more than" in said or "is not a whole number" in said


@pytest.fixture
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model") / "model"
    engine = toy.engine()
    save_model(folder, engine.model, engine.tokenizer, "")
    return str(folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--data D --split test", r"--split has no effect on .*pairs\.json, all of which is measured"),
        ("--data D --count 5", "--count has no effect"),
        ("--data D --seed 3", "--seed has no effect"),
        ("--data D --num-nouns 3", "--num-nouns has no effect"),
        ("--image-root .", "--image-root has no effect on pictograms"),
        ("--strip-prefix a", "--strip-prefix has no effect on pictograms"),
        ("--data D --beams 3", "--beams is for the task vqa, but the task here is retrieval"),
        ("--answers a.json", "--answers is for the task vqa"),
        ("--count-first-token-twice", "--count-first-token-twice is for the task vqa"),
        ("--layer 1", "--layer is for the task grounding"),
        ("--data D --detections x.json", "--detections is for the task grounding"),
    ],
)
def test_options_without_any_effect_are_refused(
    model: str, tmp_path: Path, options: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = options.replace("--data D", f"--data {tmp_path}/pairs.json").split()
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", model, *words])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert re.search(message, said), said


def test_settings_are_printed_with_their_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    main(["settings", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["train.lr"] == {
        "name": "lr",
        "kind": "a finite number",
        "default": 1e-4,
        "meaning": "highest learning rate, reached after warmup_steps",
    }
    assert len(found) > 80
    assert [name for name, one in found.items() if len(one["meaning"].split()) < 2] == []
    main(["settings", "evaluate"])
    table = capsys.readouterr().out
    assert "evaluate.beams" in table
    assert "1: greedy" in table
    assert "train.lr" not in table
