"""What is measured, what is not, and that the choice is the faster one by a margin."""

import dataclasses

import pytest
import torch

import toy
from albef.config import Config, TrainConfig
from albef.model import kernels
from albef.train import kernel_choice
from albef.train.kernel_choice import Choice, choose, measure, open_choices

CPU = torch.device("cpu")


def config_with(**settings: str) -> Config:
    return dataclasses.replace(toy.config(), train=dataclasses.replace(TrainConfig(batch_size=4), **settings))


def test_what_is_set_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "measure", lambda *given: pytest.fail("measured"))
    choice, reason = choose(config_with(precision="fp32", attention="plain", linear="onednn"), CPU)
    assert choice == Choice("fp32", "plain", "onednn")
    assert "as set" in reason
    choice, _ = choose(config_with(precision="bf16", attention="plain"), CPU)
    assert choice == Choice("bf16", "plain", "torch")


def test_a_device_without_bf16_is_not_asked_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "computes_bf16", lambda device: False)
    assert {choice.precision for choice in open_choices(config_with(), CPU)} == {"fp32"}
    monkeypatch.setattr(kernel_choice, "computes_bf16", lambda device: True)
    assert {choice.precision for choice in open_choices(config_with(), CPU)} == {"fp32", "bf16"}


@pytest.mark.parametrize(("speedup", "chosen"), [(1.0, "torch"), (1.1, "torch"), (1.3, "onednn")])
def test_another_kernel_must_be_faster_by_a_margin(
    monkeypatch: pytest.MonkeyPatch, speedup: float, chosen: str
) -> None:
    seconds = {Choice("fp32", "fused", "torch"): 1.0, Choice("fp32", "fused", "onednn"): 1 / speedup}
    monkeypatch.setattr(kernel_choice, "measure", lambda candidates, *given: seconds)
    choice, reason = choose(config_with(precision="fp32"), CPU)
    assert choice.linear == chosen
    assert choice.precision in reason


def test_measuring_leaves_the_kernels_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "SECONDS", 0.0)
    before = kernels.used()
    candidates = open_choices(config_with(), CPU)
    assert set(measure(candidates, config_with(), CPU)) == set(candidates)
    assert kernels.used() == before


def test_a_checkpoint_brings_its_choice_back() -> None:
    choice = Choice("bf16", "plain", "torch")
    assert Choice.from_facts({**choice._asdict(), "step": 3}) == choice
