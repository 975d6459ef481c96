"""Estimates follow the model: its parameters are counted, and what is computed again is not kept."""

import dataclasses
from pathlib import Path

import pytest

import toy
import toy_regions
from albef.cli.estimate import estimate
from albef.data.text import Tokenizer
from albef.model.albef import ALBEF
from albef.model_config import SystemName
from albef.model_directory import save_model
from albef.tasks.pretrain import Pretrain
from albef.train.start import choose_tokenizer
from toy_regions import SYSTEM_NAMES


def test_counts_the_model_and_sees_what_checkpointing_saves() -> None:
    config = toy.config()
    found = estimate(config)
    vocabulary = dataclasses.replace(config.model, vocab_size=choose_tokenizer(config).vocab_size)
    task = Pretrain(dataclasses.replace(config, model=vocabulary))
    assert found.parameters == sum(parameter.numel() for parameter in task.student.parameters())
    assert found.weights_bytes == 2 * 4 * found.parameters
    assert found.seconds_in_all > 0
    assert found.device == "cpu, fp32"
    assert 8 * found.parameters <= found.optimizer_bytes < 8.1 * found.parameters + 4096  # two moments
    again = dataclasses.replace(
        config, train=dataclasses.replace(config.train, checkpointing=("image", "text", "fusion"))
    )
    less = estimate(again)
    assert less.activation_bytes_per_pair < 0.8 * found.activation_bytes_per_pair
    assert less.largest_micro_batch > found.largest_micro_batch


def test_muon_keeps_one_moment_of_the_matrices() -> None:
    config = toy.config()
    adamw = estimate(config)
    muon = estimate(dataclasses.replace(config, train=dataclasses.replace(config.train, optimizer="muon")))
    assert 4 * adamw.parameters < muon.optimizer_bytes < 0.9 * adamw.optimizer_bytes


def test_a_model_to_start_from_says_how_large_it_is(tmp_path: Path) -> None:
    model = ALBEF(dataclasses.replace(toy.MODEL, image_depth=3))
    save_model(tmp_path, model, Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY), "")
    config = toy.config()
    started = dataclasses.replace(config, train=dataclasses.replace(config.train, init=str(tmp_path)))
    assert estimate(started).parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("system", SYSTEM_NAMES)
def test_models_that_list_answers_are_estimated_with_those_of_the_data(
    system: SystemName, tmp_path: Path
) -> None:
    config = toy_regions.config(system, "vqa", toy_regions.write_data(tmp_path, "vqa"))
    larger = dataclasses.replace(config, model=dataclasses.replace(config.model, num_answers=5_000))
    assert estimate(larger).parameters == estimate(config).parameters
