"""What is measured, what is not, and that the choice is the faster one by a margin."""

import dataclasses
from pathlib import Path

import pytest
import torch

import toy
import toy_regions
from albef.config import Config, TrainConfig, UserError
from albef.model import kernels
from albef.model.albef import ALBEF
from albef.model.verbs import Encoding
from albef.model_config import SystemName
from albef.train import kernel_choice
from albef.train.kernel_choice import Choice, Part, choose, measure, open_choices
from toy_regions import SYSTEM_NAMES

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


@pytest.mark.parametrize("image_size", [16, 256])
def test_what_is_measured_has_the_shapes_of_the_run(monkeypatch: pytest.MonkeyPatch, image_size: int) -> None:
    model = dataclasses.replace(toy.MODEL, image_size=image_size)
    settings = TrainConfig(batch_size=12, micro_batch_size=3, processes=2)
    config = Config(model=model, train=settings)
    monkeypatch.setattr(kernel_choice, "SECONDS", 0.0)
    monkeypatch.setattr(kernel_choice, "LONGEST_SECONDS", 1e9)
    seen: list[tuple[tuple[int, ...], tuple[int, ...], int]] = []
    encode_image, encode_text = ALBEF.encode_image, ALBEF.encode_text

    def image(self: ALBEF, pixels: torch.Tensor) -> Encoding:
        found = encode_image(self, pixels)
        seen.append((found.tokens.shape, (), 0))
        return found

    def text(self: ALBEF, ids: torch.Tensor, mask: torch.Tensor) -> Encoding:
        seen[-1] = (seen[-1][0], ids.shape, int(mask.sum()))
        return encode_text(self, ids, mask)

    monkeypatch.setattr(ALBEF, "encode_image", image)
    monkeypatch.setattr(ALBEF, "encode_text", text)
    candidates = [Choice("fp32", "fused", "torch"), Choice("fp32", "plain", "torch")]
    measure(candidates, config, CPU)
    rounds = seen[-2 * kernel_choice.MIN_ROUNDS :]
    assert {images for images, _, _ in rounds} == {(3, model.grid**2 + 1, model.image_width)}
    assert {texts for _, texts, _ in rounds} == {(3, model.max_tokens)}
    assert len({tokens for _, _, tokens in rounds}) > 1  # as no two batches have the same
    assert [tokens for _, _, tokens in rounds[::2]] == [tokens for _, _, tokens in rounds[1::2]]


@pytest.mark.parametrize(("seconds_a_pair", "pairs"), [(0.0, 500), (0.02, 8), (10.0, 1)])
def test_batches_that_take_too_long_are_measured_in_part(
    monkeypatch: pytest.MonkeyPatch, seconds_a_pair: float, pairs: int
) -> None:
    monkeypatch.setattr(Part, "seconds", lambda self, choice: self.pairs * seconds_a_pair)
    part = Part(Config(model=toy.MODEL, train=TrainConfig(batch_size=500)), CPU)
    part.grow(Choice("fp32", "fused", "torch"))
    assert part.pairs == len(part.visual) == pairs


def test_a_gpu_with_bf16_uses_it_unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "measure", lambda *given: pytest.fail("measured"))
    gpu = torch.device("cuda")
    for has_bf16, chosen in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(kernel_choice, "computes_bf16", lambda device, has=has_bf16: has)
        choice, reason = choose(config_with(), gpu)
        assert choice == Choice(chosen, "fused", "torch")
        assert chosen in reason
        assert choose(config_with(precision="fp32"), gpu)[0].precision == "fp32"


def test_a_library_that_is_set_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"train\.linear is onednn"):
        choose(config_with(linear="onednn"), torch.device("cuda"))
    monkeypatch.setattr(kernels, "onednn_is_there", lambda: False)
    with pytest.raises(UserError, match=r"train\.linear is onednn"):
        choose(config_with(linear="onednn"), CPU)


def test_measuring_draws_nothing_that_training_would_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "SECONDS", 0.0)
    torch.manual_seed(3)
    expected = torch.randn(3)
    torch.manual_seed(3)
    measure(open_choices(config_with(), CPU), config_with(), CPU)
    assert torch.equal(torch.randn(3), expected)


def test_measuring_leaves_the_kernels_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_choice, "SECONDS", 0.0)
    before = kernels.used()
    candidates = open_choices(config_with(), CPU)
    assert set(measure(candidates, config_with(), CPU)) == set(candidates)
    assert kernels.used() == before


def test_a_checkpoint_brings_its_choice_back() -> None:
    choice = Choice("bf16", "plain", "torch")
    assert Choice.from_facts({**choice._asdict(), "step": 3}) == choice


@pytest.mark.parametrize("system", SYSTEM_NAMES)
def test_systems_on_regions_are_measured_with_regions(
    system: SystemName, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernel_choice, "SECONDS", 0.0)
    config = toy_regions.config(system, "pretrain", tmp_path)
    usual = Choice("fp32", "fused", "torch")
    assert set(measure([usual], config, CPU)) == {usual}
