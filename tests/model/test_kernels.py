"""Every kernel computes the same: values and gradients."""

from collections.abc import Iterator

import pytest
import torch

from albef.model import kernels
from albef.model.kernels import Kernels, Linear


@pytest.fixture(autouse=True)
def usual_kernels_afterwards() -> Iterator[None]:
    before = kernels.used()
    yield
    kernels.use(before)


@pytest.mark.parametrize("shape", [(7, 12), (2, 5, 12), (1, 12)])
def test_onednn_computes_the_layer_of_torch(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.onednn_is_there()
    torch.manual_seed(0)
    layer, states = Linear(12, 20), torch.randn(shape, requires_grad=True)
    weights = torch.randn(*shape[:-1], 20)
    found, calls = {}, []
    onednn = kernels.onednn
    monkeypatch.setattr(kernels, "onednn", lambda *given: calls.append(1) or onednn(*given))
    for library in ("torch", "onednn"):
        kernels.use(Kernels(linear=library))
        out = layer(states)
        gradients = torch.autograd.grad((out * weights).sum(), [states, layer.weight, layer.bias])
        found[library] = [out, *gradients]
    assert len(calls) == 2  # forwards, and for the gradient of the states
    for ours, theirs in zip(found["onednn"], found["torch"], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_frozen_layers_get_no_gradient_through_onednn() -> None:
    kernels.use(Kernels(linear="onednn"))
    layer, states = Linear(4, 3).requires_grad_(False), torch.randn(2, 4, requires_grad=True)
    layer(states).sum().backward()
    assert layer.weight.grad is None
    assert states.grad is not None


def test_other_precisions_stay_with_torch() -> None:
    kernels.use(Kernels(linear="onednn"))
    layer, states = Linear(4, 3), torch.randn(2, 4)
    assert layer.double()(states.double()).dtype == torch.float64
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()(states).dtype == torch.bfloat16


@pytest.mark.parametrize("masked", [False, True])
def test_plain_attention_is_the_fused_one(masked: bool) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, length, 4, requires_grad=True) for length in (5, 6, 6))
    additive = None
    if masked:
        additive = torch.zeros(2, 1, 1, 6)
        additive[0, ..., 4:] = torch.finfo(torch.float32).min
    found = {}
    for name in ("fused", "plain"):
        kernels.use(Kernels(attention=name))
        out = kernels.attention(query, key, value, additive, dropout=0.0)
        found[name] = [out, *torch.autograd.grad(out.square().sum(), [query, key, value])]
    for plain, fused in zip(found["plain"], found["fused"], strict=True):
        torch.testing.assert_close(plain, fused)


@pytest.mark.parametrize("bf16", [False, True])
def test_layers_made_ready_compute_the_same(bf16: bool) -> None:
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"one": torch.nn.Sequential(Linear(12, 20)), "other": Linear(12, 20)})
    states = torch.randn(7, 12)
    ready = kernels.ready(model, "one", rows=7, bf16=bf16)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        expected, found = model["one"](states), ready["one"](states)
    # Not every CPU has oneDNN's products in bf16.
    there = not bf16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert (ready["one"][0].laid_out is not None) == there
    assert ready["other"] is model["other"]
    assert model["one"][0].laid_out is None
    assert ready["one"][0].weight is model["one"][0].weight
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected)


def test_other_precisions_are_not_made_ready() -> None:
    model = torch.nn.ModuleDict({"one": Linear(4, 3).double()})
    assert kernels.ready(model, "one", rows=2, bf16=False)["one"].laid_out is None
