"""How products are computed: the one place that knows that machines differ. What is computed stays the same."""

from __future__ import annotations

import copy
import os
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# oneDNN keeps what it prepared for each shape, 1,024 of them by default. Packed texts are of ever new shapes, so that
# grew by 0.8 MB a picture in re-ranking at base size. It is read at oneDNN's first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")


Module = TypeVar("Module", bound=nn.Module)


class Kernels(NamedTuple):
    """Which implementation computes attention and fp32 linear layers.

    "auto": plain products for bf16 on a CPU, where they beat `scaled_dot_product_attention` several times over,
    and that one ("fused") everywhere else. "onednn": its products on a CPU in the place of torch's BLAS.
    """

    attention: str = "auto"
    linear: str = "torch"


_used = Kernels()


def use(kernels: Kernels) -> None:
    """Makes every model of this process compute with these kernels."""
    global _used
    _used = kernels


def used() -> Kernels:
    """The kernels that models of this process compute with."""
    return _used


def attention(
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch heads keys width"],
    value: Float[Tensor, "batch heads keys width"],
    additive: Float[Tensor, "batch 1 _ keys"] | None,
    dropout: float,
) -> Float[Tensor, "batch heads queries width"]:
    """Softmax(Q Kᵀ / √d + additive) V."""
    plain = _used.attention == "plain"
    if _used.attention == "auto":
        plain = query.device.type == "cpu" and query.dtype == torch.bfloat16
    if not plain:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=additive, dropout_p=dropout)
    return F.dropout(probabilities(query, key, additive), dropout, training=dropout > 0) @ value


def probabilities(
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch heads keys width"],
    additive: Float[Tensor, "batch 1 _ keys"] | None,
) -> Float[Tensor, "batch heads queries keys"]:
    """Softmax(Q Kᵀ / √d + additive)."""
    # Queries are scaled rather than scores, which are many more.
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return (scores if additive is None else scores + additive).softmax(-1)


class Linear(nn.Linear):
    """A linear layer whose fp32 products on a CPU are those of the chosen library."""

    laid_out: Tensor | None = None  # the weight as oneDNN's products want it, of a model made `ready`

    def forward(self, states: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape out"]:
        """The layer's states."""
        if self.laid_out is not None:
            dtype = self.laid_out.dtype
            return onednn(states.to(dtype), self.laid_out, self.bias.to(dtype))
        return linear(states, self.weight, self.bias)


def linear(
    states: Float[Tensor, "*shape width"], weight: Float[Tensor, "out width"], bias: Float[Tensor, " out"]
) -> Float[Tensor, "*shape out"]:
    """states · weightᵀ + bias."""
    cpu = states.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    if _used.linear == "onednn" and cpu and states.dtype == torch.float32:
        return cast(Tensor, OneDNNLinear.apply(states, weight, bias))
    return F.linear(states, weight, bias)


class OneDNNLinear(torch.autograd.Function):
    """A linear layer through oneDNN, forwards and for the input's gradient; the weight's was no faster (measured)."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(states, weight)
        return onednn(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        states, weight = ctx.saved_tensors
        wanted, gradient = ctx.needs_input_grad, gradients[0]
        rows = gradient.flatten(0, -2)
        return (
            onednn(gradient, weight.t(), None) if wanted[0] else None,
            rows.t() @ states.flatten(0, -2) if wanted[1] else None,
            rows.sum(0) if wanted[2] else None,
        )


def onednn(states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """states · weightᵀ + bias by oneDNN."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], ""))


def onednn_is_there() -> bool:
    """Whether this build of torch can call oneDNN's products."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def laid_out(weight: Tensor, rows: int) -> Tensor:
    """The weight as oneDNN wants it for products with about so many rows; nothing else can read it."""
    return cast(Tensor, torch.ops.mkldnn._reorder_linear_weight(weight, rows))


def ready(model: Module, part: str, rows: int, bf16: bool) -> Module:
    """The model again, with the linear layers of one part ready for many products with about `rows` rows.

    oneDNN otherwise lays out a weight anew for every product, and autocast casts it. Results are those of the same
    precision, without gradients; a device or a build of torch without such products computes as always. All else is
    shared with the model given, which stays as it is: others may be computing with it.
    """
    dtype = torch.bfloat16 if bf16 else torch.float32

    def twin(module: nn.Module) -> nn.Module:
        own = copy.copy(module)
        own._modules = {
            name: None if child is None else twin(child) for name, child in module._modules.items()
        }
        if isinstance(own, Linear) and can_lay_out(own, dtype):
            own.laid_out = laid_out(own.weight.detach().to(dtype), rows)
        return own

    whole = copy.copy(model)
    whole._modules = {**model._modules, part: twin(model.get_submodule(part))}
    return whole


def can_lay_out(layer: Linear, dtype: torch.dtype) -> bool:
    """Whether oneDNN has products of this layer's weight in that precision."""
    if layer.weight.device.type != "cpu" or layer.weight.dtype != torch.float32 or not onednn_is_there():
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
