"""Schedules and the groups of the optimizer."""

import dataclasses
import itertools
from typing import Literal

import pytest

import toy
import toy_lxmert
import toy_oscar
import toy_uniter
from albef.config import TaskConfig, TrainConfig
from albef.model.albef import ALBEF
from albef.model.verbs import VisionLanguageModel
from albef.tasks.pretrain import Pretrain
from albef.train.optim import build_optimizer, is_decayed, lr_at, set_lr, stage_at


def test_warmup_then_cosine_to_the_minimum() -> None:
    config = TrainConfig(steps=110, warmup_steps=10, warmup_lr=0.0, lr=1.0, min_lr=0.1)
    rates = [lr_at(step, config, 1) for step in range(111)]
    assert rates[:11] == pytest.approx([step / 10 for step in range(11)])
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert all(a > b for a, b in itertools.pairwise(rates[10:]))


def test_only_matrices_decay_unless_as_published() -> None:
    student = Pretrain(toy.config()).student
    decayed = {name for name, p in student.named_parameters() if is_decayed(name, p, False)}
    assert "text_encoder.words.weight" not in decayed
    assert "image_encoder.positions" not in decayed
    assert "temperature" not in decayed
    assert "image_encoder.patches.weight" in decayed
    assert not any("norm" in name or name.endswith("bias") for name in decayed)
    published = {name for name, p in student.named_parameters() if is_decayed(name, p, True)}
    assert published - decayed == {
        "image_encoder.positions",
        "image_encoder.class_token",
        "text_encoder.words.weight",
        "text_encoder.positions.weight",
        "text_encoder.types.weight",
    }


def test_the_temperature_has_a_rate_of_its_own() -> None:
    student = Pretrain(toy.config()).student
    optimizer = build_optimizer(student, TrainConfig(temperature_lr_scale=0.1))
    set_lr(optimizer, 2.0)
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx([0.2, 2.0, 2.0])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(student.parameters()))


@pytest.mark.parametrize(
    ("model", "head"),
    [
        (toy_uniter.model(("answers",)), "answer_head"),
        (toy_uniter.model(("entailment",)), "entailment_head"),
        (toy_oscar.model("answers"), "answer_head"),
        (toy_oscar.model("nlvr"), "pair_head"),
        (toy_lxmert.model("answers"), "classifier"),
        (ALBEF(toy.MODEL, ("entailment",)), "classifier"),
    ],
)
def test_a_new_head_has_a_rate_of_its_own(model: VisionLanguageModel, head: str) -> None:
    optimizer = build_optimizer(model, TrainConfig(head_lr_scale=10.0))
    set_lr(optimizer, 2.0)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in group["param_names"]}
    assert rates == {name: 20.0 if name.startswith(head) else 2.0 for name, _ in model.named_parameters()}
    assert 20.0 in rates.values()


@pytest.mark.parametrize("published", [False, True])
def test_the_temperature_decays_only_as_published(published: bool) -> None:
    student = Pretrain(toy.config()).student
    optimizer = build_optimizer(student, TrainConfig(decay_embeddings=published))
    (group,) = (group for group in optimizer.param_groups if student.temperature in set(group["params"]))
    assert group["weight_decay"] == (TrainConfig().weight_decay if published else 0.0)


def test_stages_follow_the_step() -> None:
    task = TaskConfig(alpha=0.4, align_first=0.25, hardness_ramp=0.5)
    config = dataclasses.replace(toy.config(task=task), train=TrainConfig(steps=100))
    assert [stage_at(step, config, 50).alpha for step in (0, 25, 50, 99)] == pytest.approx([0, 0.2, 0.4, 0.4])
    assert [stage_at(step, config, 50).fuse for step in (0, 24, 25)] == [False, False, True]
    hardness = [stage_at(step, config, 50).hardness for step in (0, 25, 44, 63, 99)]
    assert hardness == pytest.approx([0, 0, 0.5, 1, 1])
    half = dataclasses.replace(config, task=dataclasses.replace(task, hardness=0.5))
    assert [stage_at(step, half, 50).hardness for step in (25, 44, 99)] == pytest.approx([0, 0.25, 0.5])
    plain = dataclasses.replace(config, task=TaskConfig())
    assert stage_at(0, plain, 50).hardness == 1
    assert stage_at(0, plain, 50).fuse
    assert stage_at(99, dataclasses.replace(config, task=TaskConfig(hardness=0.0)), 50).hardness == 0


def test_alpha_is_that_of_the_distilled_losses() -> None:
    config = dataclasses.replace(toy.config(), task=TaskConfig(alpha_ramp_steps=0, distill=("itc",)))
    stage = stage_at(5, config, 50)
    assert (stage.alpha, stage.alpha_of("itc"), stage.alpha_of("mlm")) == (0.4, 0.4, 0.0)
    none = stage_at(5, dataclasses.replace(config, task=TaskConfig(alpha_ramp_steps=0, distill=())), 50)
    assert (none.alpha, none.alpha_of("itc")) == (0.0, 0.0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "bertadam"])
def test_models_without_a_temperature_are_trained_too(
    optimizer: Literal["adamw", "muon", "bertadam"],
) -> None:
    student = ALBEF(toy.MODEL, ("answer",))
    built = build_optimizer(student, TrainConfig(optimizer=optimizer))
    held = [parameter for group in built.param_groups for parameter in group["params"]]
    assert len(held) == len(list(student.parameters()))
