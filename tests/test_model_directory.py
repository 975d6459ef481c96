"""What a model directory says of itself, read with suspicion: every odd value is named with its file and key."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import pytest
import tokenizers

import toy
from albef.config import UserError
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.exchange.importing import import_checkpoint
from albef.model.albef import ALBEF
from albef.model_directory import read_answers, read_config, save_model

NAN, INFINITE = float("nan"), float("inf")
ODD: list[tuple[str, Any]] = [
    ("heads", 5),
    ("heads", []),
    ("heads", None),
    ("heads", "itm"),
    ("heads", ["itm", "gpt"]),
    ("heads", ["itm", 3]),
    ("heads", [["itm"]]),
    ("image_size", 48.0),
    ("image_size", "16"),
    ("image_size", None),
    ("image_size", True),
    ("image_size", [16]),
    ("image_size", 10**30),
    ("image_depth", 10**9),
    ("image_width", -16),
    ("text_heads", 0),
    ("text_heads", 3),
    ("vocab_size", {"bert": 1}),
    ("mean", [0.1]),
    ("mean", 0.5),
    ("mean", [0.1, 0.2, "0.3"]),
    ("mean", [0.1, 0.2, NAN]),
    ("mean", [[0.1], [0.2], [0.3]]),
    ("std", [0.5, 0.0, 0.5]),
    ("std", [0.5, 0.5, 0.5, 0.5]),
    ("dropout", NAN),
    ("dropout", INFINITE),
    ("initial_temperature", -1),
    ("initial_std", "small"),
    ("append_sep", "yes"),
    ("append_sep", 1),
    ("size", "huge"),
    ("size", ["tiny"]),
    ("vocabulary", {}),
    ("max_tokens", 10**4),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    tokenizer = Tokenizer.train(toy.CAPTIONS, toy.ENGINE_MODEL.vocab_size)
    save_model(folder, ALBEF(toy.ENGINE_MODEL), tokenizer, "")
    return folder


@pytest.mark.parametrize(("key", "value"), ODD)
def test_odd_values_are_named_with_their_file_and_key(folder: Path, key: str, value: object) -> None:
    file = folder / "config.json"
    sound = file.read_text()
    try:
        file.write_text(json.dumps(json.loads(sound) | {key: value}))
        with pytest.raises(UserError) as refused:
            Engine.load(folder, quiet=True)
    finally:
        file.write_text(sound)
    assert str(refused.value).startswith(f"{file}: ")
    assert key in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_sound_one_is_read_as_it_was_written(folder: Path) -> None:
    assert read_config(folder / "config.json") == (toy.ENGINE_MODEL, ("contrast", "itm", "mlm"))


@pytest.mark.parametrize("append_sep", [False, True])
@pytest.mark.parametrize("given", ["trained", "read"])
def test_other_libraries_read_the_texts_that_the_model_reads(
    tmp_path: Path, given: str, append_sep: bool
) -> None:
    config = dataclasses.replace(toy.ENGINE_MODEL, append_sep=append_sep)
    tokenizer = Tokenizer.train(toy.CAPTIONS, config.vocab_size)
    if given == "read":  # from a file that says the other thing
        tokenizer.save(tmp_path / "other.json", dataclasses.replace(toy.MODEL, append_sep=not append_sep))
        tokenizer = Tokenizer.load(tmp_path / "other.json")
    save_model(tmp_path / "model", ALBEF(config), tokenizer, "")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "model" / "tokenizer.json"))
    ours = Engine.load(tmp_path / "model", quiet=True).tokenizer
    for text in toy.CAPTIONS:
        expected = ours.encode(text, config.max_tokens, append_sep).tolist()
        assert theirs.encode(text).ids == expected


def test_a_place_that_weights_can_never_be_read_from_is_refused(tmp_path: Path) -> None:
    engine = toy.engine()
    place = tmp_path / os.fsdecode(b"caf\xe9") / "model"
    with pytest.raises(UserError, match="this path is not UTF-8"):
        save_model(place, engine.model, engine.tokenizer, "")
    with pytest.raises(UserError, match="this path is not UTF-8"):
        import_checkpoint(tmp_path / "a.pth", place)
    assert list(tmp_path.iterdir()) == []


def test_a_published_folder_is_told_from_a_model_directory(tmp_path: Path) -> None:
    engine = toy.engine()
    save_model(tmp_path / "model", engine.model, engine.tokenizer, "")
    for content in ('{"model_type": "clip"}', "[]"):
        (tmp_path / "model" / "config.json").write_text(content)
        with pytest.raises(UserError, match=r"has no format_version.* albef import .*model --out DIR"):
            Engine.load(tmp_path / "model")


@pytest.mark.parametrize(
    "content",
    [
        ["yes", "no"],
        [{"ans": "yes", "dsets": ["vqa"]}, {"ans": "no", "dsets": []}],  # LXMERT's all_ans.json
        {"no": 1, "yes": 0},  # UNITER's ans2label.json
    ],
)
def test_lists_of_answers_come_in_three_forms(content: object, tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text(json.dumps(content))
    assert read_answers(tmp_path / "answers.json") == ["yes", "no"]


@pytest.mark.parametrize(
    "content",
    [
        [],
        {},
        3,
        ["yes", 1],
        [{"answer": "yes"}],
        {"yes": 1},
        {"yes": 0, "no": 0},
        {"yes": True},
        {"yes": 0, "a": "b"},
    ],
)
def test_other_contents_are_no_list_of_answers(content: object, tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"answers\.json: not a list of answers"):
        read_answers(tmp_path / "answers.json")
