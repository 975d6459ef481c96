"""BertAdam against its formula, and its schedule."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import toy_lxmert
from albef.config import TrainConfig
from albef.train.bert_adam import BertAdam
from albef.train.checkpoint import load_optimizer, optimizer_tensors
from albef.train.optim import build_optimizer, lr_at, set_lr

TRAIN = TrainConfig(
    optimizer="bertadam", schedule="linear", lr=1e-2, weight_decay=0.1, eps=1e-6, steps=8, warmup_steps=2
)


def test_it_is_adam_without_bias_correction_and_decays_everything() -> None:
    model = toy_lxmert.model()
    optimizer = build_optimizer(model, TRAIN)
    names = [name for group in optimizer.param_groups for name in group["param_names"]]
    assert sorted(names) == sorted(name for name, _ in model.named_parameters())
    parameter = model.pooler.linear.bias
    weight, mean, square = parameter.detach().double(), 0.0, 0.0
    for step in range(6):
        rate = lr_at(step, TRAIN, 1)
        set_lr(optimizer, rate)
        gradient = torch.randn(len(parameter), generator=torch.Generator().manual_seed(step))
        parameter.grad = gradient
        optimizer.step()
        mean = 0.9 * mean + 0.1 * gradient.double()
        square = 0.999 * square + 0.001 * gradient.double() ** 2
        weight = weight - rate * (mean / (square**0.5 + 1e-6) + 0.1 * weight)
        torch.testing.assert_close(parameter.detach().double(), weight, rtol=1e-5, atol=1e-7)


def test_the_first_updates_are_several_times_the_learning_rate() -> None:
    parameter = nn.Parameter(torch.zeros(1))
    optimizer, moved = BertAdam([parameter], lr=1.0, eps=1e-6, weight_decay=0.0), []
    for _ in range(5):
        before = parameter.item()
        parameter.grad = torch.ones(1)
        optimizer.step()
        moved.append(before - parameter.item())
    assert moved == pytest.approx([3.16, 4.25, 4.95, 5.44, 5.80], abs=0.01)


def test_what_has_no_gradient_stays_as_it_is() -> None:
    moved, still = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = BertAdam([moved, still], lr=0.1, weight_decay=0.5)
    moved.grad = torch.zeros(2)
    optimizer.step()
    assert torch.equal(still, torch.ones(2))
    assert moved.tolist() == pytest.approx([0.95, 0.95])  # decay alone
    assert still not in optimizer.state or not optimizer.state[still]


def test_stored_and_loaded_it_goes_on_as_before() -> None:
    found = []
    for stored in (False, True):
        model = toy_lxmert.model()
        optimizer = build_optimizer(model, TRAIN)
        for step in range(4):
            if stored and step == 2:
                tensors = optimizer_tensors(optimizer)
                optimizer = build_optimizer(model, TRAIN)
                load_optimizer(optimizer, tensors)
            set_lr(optimizer, lr_at(step, TRAIN, 1))
            for number, parameter in enumerate(model.parameters()):
                generator = torch.Generator().manual_seed(100 * step + number)
                parameter.grad = torch.randn(parameter.shape, generator=generator)
            optimizer.step()
        found.append(list(model.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


@given(st.integers(0, 50), st.integers(1, 50))
def test_the_linear_schedule_rises_from_zero_and_falls_to_zero(warmup: int, more: int) -> None:
    train = dataclasses.replace(TRAIN, warmup_steps=warmup, steps=warmup + more)
    rates = [lr_at(step, train, 1) for step in range(train.steps + 2)]
    assert max(rates) == pytest.approx(train.lr) == rates[warmup]
    assert rates[:warmup] == pytest.approx([train.lr * step / max(warmup, 1) for step in range(warmup)])
    share = [(train.steps - step) / more for step in range(warmup, train.steps)]
    assert rates[warmup : train.steps] == pytest.approx([train.lr * one for one in share])
    assert rates[train.steps :] == [0.0, 0.0]
