"""Matrices that move by their orthogonalised momentum."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import toy
from albef.config import TrainConfig, UserError
from albef.tasks.pretrain import Pretrain
from albef.train import muon
from albef.train.muon import MOMENTUM, STEP_RMS, Muon, orthogonal
from albef.train.optim import build_optimizer

MUON = TrainConfig(optimizer="muon", weight_decay=0.1)


@settings(max_examples=20, deadline=None)
@given(rows=st.integers(2, 40), columns=st.integers(2, 40), seed=st.integers(0, 99))
def test_orthogonal_matrices_keep_their_directions_at_length_one(rows: int, columns: int, seed: int) -> None:
    torch.manual_seed(seed)
    matrices = torch.randn(3, rows, columns) * torch.tensor([1e-3, 1.0, 1e3])[:, None, None]
    u, lengths, vt = torch.linalg.svd(matrices, full_matrices=False)
    found = orthogonal(matrices)
    inside = u.mT @ found @ vt.mT  # diagonal where the singular vectors are the same
    values = inside.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(inside, torch.diag_embed(values), atol=2e-3, rtol=0)
    clear = lengths > 0.02 * lengths[:, :1]  # what is nearly zero beside the others stays small
    assert values[clear].min() > 0.6
    assert values.max() < 1.3


def test_a_gpu_iterates_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    matrices = torch.randn(2, 24, 40, generator=torch.Generator().manual_seed(0))
    assert orthogonal(matrices.to("meta")).dtype == torch.bfloat16
    exact = orthogonal(matrices)
    assert exact.dtype == torch.float32
    monkeypatch.setattr(muon, "precision", lambda matrices: torch.bfloat16)
    rounded = orthogonal(matrices)
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.02, rtol=0)
    weight = nn.Parameter(matrices[0].clone())
    weight.grad = matrices[1].clone()
    Muon([{"params": [weight], "weight_decay": 0.0, "muon": True}], lr=0.01).step()
    assert weight.dtype == torch.float32
    assert not torch.equal(weight, matrices[0])


def test_a_step_is_decay_and_the_orthogonal_look_ahead() -> None:
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(6, 4))
    optimizer = Muon([{"params": [weight], "weight_decay": 0.1, "muon": True}], lr=0.01)
    momentum = torch.zeros(6, 4)
    for _ in range(3):
        before, gradient = weight.detach().clone(), torch.randn(6, 4)
        weight.grad = gradient.clone()
        optimizer.step()
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
        ahead = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
        moved = 0.01 * STEP_RMS * 6**0.5 * orthogonal(ahead[None])[0]
        torch.testing.assert_close(weight.detach(), before * (1 - 0.01 * 0.1) - moved)


def test_what_is_no_matrix_of_a_layer_moves_as_with_adamw() -> None:
    students = [Pretrain(toy.config()).student for _ in range(2)]
    students[1].load_state_dict(students[0].state_dict())
    for student, config in zip(students, (MUON, dataclasses.replace(MUON, optimizer="adamw")), strict=True):
        optimizer = build_optimizer(student, config)
        assert sum(len(group["params"]) for group in optimizer.param_groups) == len(
            list(student.parameters())
        )
        torch.manual_seed(1)
        for parameter in student.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
    others = dict(students[1].named_parameters())
    differing = {n for n, p in students[0].named_parameters() if not torch.equal(p, others[n])}
    assert "image_encoder.blocks.0.attention.qkv.weight" in differing
    assert "fusion_encoder.layers.0.mlp.up.weight" in differing
    assert all((".blocks." in name or ".layers." in name) and name.endswith("weight") for name in differing)
    assert not any("norm" in name or "words" in name for name in differing)


def test_layers_without_a_gradient_rest() -> None:
    student = Pretrain(toy.config()).student
    optimizer = build_optimizer(student, MUON)
    before = {name: p.detach().clone() for name, p in student.named_parameters()}
    for name, parameter in student.named_parameters():
        if name.startswith("image_encoder"):
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    moved = {name for name, p in student.named_parameters() if not torch.equal(p, before[name])}
    assert moved
    assert all(name.startswith("image_encoder") for name in moved)


def test_slices_are_refused() -> None:
    with pytest.raises(UserError, match=r"train\.shard splits matrices"):
        TrainConfig(optimizer="muon", shard=True)
