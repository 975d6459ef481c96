"""A head of listed answers starts with the rows of the answers that the model knows."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import toy
import toy_lxmert
import toy_oscar
import toy_uniter
from albef.config import Config, TaskConfig, UserError
from albef.data.text import Tokenizer
from albef.model_config import ModelConfig
from albef.model_directory import save_model
from albef.peers.lxmert_task import LxmertVQA
from albef.peers.oscar_task import OscarVQA
from albef.peers.region_tasks import RegionTask
from albef.peers.regions import RegionModel
from albef.peers.uniter_task import UniterVQA
from albef.train.initial import start_from
from albef.train.initial_answers import key
from albef.train.loop import begin
from albef.train.start import initial_model

TOKENIZER = Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY)
KNOWN = ["2", "yes", "fox", "gray"]
WANTED = ["Two", "snow", "a fox", "grey", "yes"]  # the second is not known

SYSTEMS: dict[str, tuple[ModelConfig, Callable[..., RegionModel], type[RegionTask], str]] = {
    "lxmert": (toy_lxmert.CONFIG, lambda c: toy_lxmert.model(config=c), LxmertVQA, "classifier.out"),
    "oscar": (toy_oscar.CONFIG, lambda c: toy_oscar.model("answers", config=c), OscarVQA, "answer_head"),
    "uniter": (
        toy_uniter.CONFIG,
        lambda c: toy_uniter.model(("answers",), config=c),
        UniterVQA,
        "answer_head.out",
    ),
}


def started(system: str, folder: Path, known: list[str], wanted: list[str]) -> tuple[dict[str, Tensor], ...]:
    """The weights of a model that knows answers, of a task with others before, and of this task after its start."""
    config, build, kind, _ = SYSTEMS[system]
    model = build(dataclasses.replace(config, num_answers=4))
    save_model(folder, model, TOKENIZER, "", known)
    task = kind(Config(model=dataclasses.replace(config, num_answers=5), task=TaskConfig(name="vqa")))
    before = {name: tensor.clone() for name, tensor in task.student.state_dict().items()}
    start_from(task, str(folder), wanted)
    return model.state_dict(), before, task.student.state_dict()


@pytest.mark.parametrize("system", SYSTEMS)
def test_known_answers_keep_their_rows_and_others_are_zero(system: str, tmp_path: Path) -> None:
    last = SYSTEMS[system][3]
    stored, _, found = started(system, tmp_path / "model", KNOWN, WANTED)
    for kind in ("weight", "bias"):
        rows, own = stored[f"{last}.{kind}"], found[f"{last}.{kind}"]
        assert torch.equal(own, torch.stack([rows[0], torch.zeros_like(rows[0]), rows[2], rows[3], rows[1]]))
    others = [name for name in found if not name.startswith(last)]
    assert all(torch.equal(found[name], stored[name]) for name in others)


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize(("known", "wanted"), [([], WANTED), (KNOWN, [])])
def test_without_both_lists_the_head_starts_at_random(
    system: str, known: list[str], wanted: list[str], tmp_path: Path
) -> None:
    head = SYSTEMS[system][3].partition(".")[0] + "."
    stored, before, found = started(system, tmp_path / "model", known, wanted)
    for name, tensor in found.items():
        assert torch.equal(tensor, (before if name.startswith(head) else stored)[name]), name


def test_as_many_answers_in_another_order_are_other_answers(tmp_path: Path) -> None:
    config = dataclasses.replace(toy_lxmert.CONFIG, num_answers=4)
    model = toy_lxmert.model("answers", config=config)
    save_model(tmp_path / "model", model, TOKENIZER, "", KNOWN)
    task = LxmertVQA(Config(model=config, task=TaskConfig(name="vqa")))
    start_from(task, str(tmp_path / "model"), KNOWN[::-1])
    weight = model.state_dict()["classifier.out.weight"]
    assert torch.equal(task.student.state_dict()["classifier.out.weight"], weight.flip(0))


def test_a_training_starts_with_the_answers_of_its_run(tmp_path: Path) -> None:
    config = dataclasses.replace(toy_lxmert.CONFIG, num_answers=4)
    model = toy_lxmert.model("answers", config=config)
    save_model(tmp_path / "model", model, TOKENIZER, "", KNOWN)
    train = dataclasses.replace(toy.config().train, init=str(tmp_path / "model"))
    run = Config(model=config, task=TaskConfig(name="vqa"), train=train)
    task = begin(run, tmp_path / "run", torch.device("cpu"), KNOWN[::-1]).task
    weight = model.state_dict()["classifier.out.weight"]
    assert torch.equal(task.student.state_dict()["classifier.out.weight"], weight.flip(0))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Yes.", "yes"),
        ("the Fox", "fox"),
        ("an  owl", "owl"),
        ("a man", "man"),
        ("ten", "10"),
        ("zero", "zero"),
        ("Grey", "gray"),
        ("", ""),
        ("a", "a"),
        ("theatre", "theatre"),
    ],
)
def test_answers_are_compared_as_published(answer: str, expected: str) -> None:
    assert key(answer) == expected


def test_a_recipe_of_one_system_does_not_start_from_another(tmp_path: Path) -> None:
    save_model(tmp_path / "model", toy_oscar.model("itm"), TOKENIZER, "")
    config = Config(model=toy_uniter.CONFIG)
    config = dataclasses.replace(
        config, train=dataclasses.replace(config.train, init=str(tmp_path / "model"))
    )
    with pytest.raises(
        UserError, match=r"model: is a model of system oscar, but the recipe's model\.system is uniter"
    ):
        initial_model(config)
    assert json.loads((tmp_path / "model" / "config.json").read_text())["system"] == "oscar"
