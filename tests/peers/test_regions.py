"""Regions and the transformer over text and regions."""

import dataclasses
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import nn

import toy
import toy_lxmert
import toy_oscar
import toy_uniter
from albef.config import Config, ModelConfig, UserError
from albef.model.albef import ALBEF
from albef.model.layers import CrossAttention, SelfAttention
from albef.model.text_encoder import TextLayer
from albef.peers.lxmert import LXMERT
from albef.peers.oscar import OSCAR
from albef.peers.regions import JointEncoder, RegionMemory, joined
from albef.peers.uniter import UNITER
from albef.train.start import initial_model

CONFIG = dataclasses.replace(toy.MODEL, dropout=0.0)


def states_of(encoder: JointEncoder, length: int, regions: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States of a text of 3 tokens padded to `length`, with 2 regions padded to `regions`."""
    generator = torch.Generator().manual_seed(0)
    real = torch.randn(1, 5, CONFIG.text_width, generator=generator)
    text, of_image = torch.zeros(1, length, CONFIG.text_width), torch.zeros(1, regions, CONFIG.text_width)
    text[:, :3], of_image[:, :2] = real[:, :3], real[:, 3:]
    memory = RegionMemory(of_image, torch.arange(regions)[None] < 2)
    states = encoder(*joined(text, torch.arange(length)[None] < 3, memory))
    return states[:, :3], states[:, length : length + 2]


def test_padding_between_text_and_regions_changes_nothing() -> None:
    torch.manual_seed(0)
    encoder = JointEncoder(CONFIG, 2)
    expected = states_of(encoder, 3, 2)
    for found, wanted in zip(states_of(encoder, 6, 5), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("toy", [toy_lxmert, toy_oscar, toy_uniter])
def test_without_layers_in_which_text_and_regions_meet_it_is_refused(toy: ModuleType) -> None:
    with pytest.raises(UserError, match=rf"model\.fusion_depth is 0.*{toy.CONFIG.system}"):
        Config(model=dataclasses.replace(toy.CONFIG, fusion_depth=0))


@pytest.mark.parametrize("packs", [True, False])
def test_the_last_layer_computes_only_what_is_read(packs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("albef.model.layers.packs", lambda device: packs)
    torch.manual_seed(0)
    encoder, tokens = JointEncoder(CONFIG, 2), torch.randn(3, 5, CONFIG.text_width)
    mask = torch.tensor([[1, 1, 1, 0, 1], [1, 0, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    positions = torch.tensor([0, 4, 7, 10, 14])
    sizes: list[int] = []
    last = encoder.layers[-1]
    assert isinstance(last, TextLayer)
    last.mlp.register_forward_pre_hook(lambda layer, given: sizes.append(len(given[0])))
    found = [encoder(tokens, mask).flatten(0, 1)[positions], encoder.at(tokens, mask, positions)]
    assert sizes == [11 if packs else 15, 5]
    torch.testing.assert_close(*found)
    gradients = []
    for states in found:
        states.square().sum().backward()
        gradients.append(
            [parameter.grad.clone() for parameter in encoder.parameters() if parameter.grad is not None]
        )
        encoder.zero_grad()
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_memory_of_one_image_serves_all_texts() -> None:
    memory = RegionMemory(torch.randn(1, 2, 4), torch.tensor([[True, False]]))
    tokens, mask = joined(torch.zeros(3, 2, 4), torch.ones(3, 2, dtype=torch.bool), memory)
    assert tokens.shape == (3, 4, 4)
    assert torch.equal(tokens[2, 2:], memory.tokens[0])
    assert mask.tolist() == [[True, True, True, False]] * 3
    assert len(memory.select(torch.tensor([0, 0]))) == 2
    assert memory.bytes_per_image == 2 * 4 * 4


def test_a_last_layer_of_cls_alone_changes_nothing() -> None:
    torch.manual_seed(0)
    encoder, mask = JointEncoder(CONFIG, 2), torch.tensor([[True, False, True], [True, True, True]])
    tokens = torch.randn(2, 3, CONFIG.text_width)
    first = encoder(tokens, mask, first_only=True)
    torch.testing.assert_close(first, encoder(tokens, mask)[:, :1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "kind",
    [
        lambda config: ALBEF(config, ("itm",)).fusion_encoder,
        lambda config: UNITER(config, ("paired_attention",)),
        OSCAR,
        LXMERT,
    ],
)
@pytest.mark.parametrize("rate", [None, 0.1])
def test_attention_may_have_a_dropout_of_its_own(
    kind: Callable[[ModelConfig], nn.Module], rate: float | None
) -> None:
    config = dataclasses.replace(CONFIG, dropout=0.3, attention_dropout=rate)
    modules = list(kind(config).modules())
    assert {part.p for part in modules if isinstance(part, nn.Dropout)} == {0.3}
    attention = [part for part in modules if isinstance(part, SelfAttention | CrossAttention)]
    assert {part.dropout for part in attention} == {0.3 if rate is None else rate}


@pytest.mark.parametrize("frozen", [False, True])
def test_the_recipe_says_whether_first_rows_of_a_model_to_start_from_are_learned(frozen: bool) -> None:
    known = dataclasses.replace(toy_lxmert.CONFIG, freeze_first_rows=not frozen)
    own = dataclasses.replace(known, freeze_first_rows=frozen)
    assert initial_model(Config(model=own), known).freeze_first_rows is frozen


def test_a_model_to_start_from_gets_the_recipes_dropout_and_new_head() -> None:
    known = toy_oscar.CONFIG
    own = dataclasses.replace(known, text_width=24, dropout=0.3, attention_dropout=0.1, pair_head_scale=2)
    found = initial_model(Config(model=own), known)
    assert (found.dropout, found.attention_dropout, found.pair_head_scale) == (0.3, 0.1, 2)
    assert found.text_width == known.text_width
