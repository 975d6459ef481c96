"""How attention and linear layers are computed on this machine. The mathematics is the same everywhere."""

from __future__ import annotations

import copy
import os
from typing import Any, NamedTuple, TypeVar, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# oneDNN caches a primitive for each shape, up to 1,024. Packed texts keep bringing new shapes: at base size,
# re-ranking grew by 0.8 MB per image. oneDNN reads this limit at its first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "128")


Module = TypeVar("Module", bound=nn.Module)


class Kernels(NamedTuple):
    """Which implementations compute attention and fp32 linear layers.

    Attention: "fused" is `scaled_dot_product_attention`, "plain" is two matrix products. "auto" is "plain" for bf16
    on a CPU, where it is several times faster, and "fused" elsewhere. Linear: "onednn" replaces torch's BLAS on a CPU.
    """

    attention: str = "auto"
    linear: str = "torch"


_used = Kernels()


def use(kernels: Kernels) -> None:
    """Sets the kernels of all models in this process."""
    global _used
    _used = kernels


def used() -> Kernels:
    """The kernels of all models in this process."""
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
    # There are far fewer queries than scores to scale.
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1)
    return (scores if additive is None else scores + additive).softmax(-1)


class Linear(nn.Linear):
    """A linear layer that computes fp32 on a CPU with the chosen library."""

    laid_out: Tensor | None = None  # the weight in oneDNN's layout, after `ready`

    def forward(self, states: Float[Tensor, "*shape width"]) -> Float[Tensor, "*shape out"]:
        """The transformed states."""
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
    """A linear layer by oneDNN: forward and the input's gradient. The weight's gradient measured no faster."""

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
    """states · weightᵀ + bias, by oneDNN."""
    return cast(Tensor, torch.ops.mkldnn._linear_pointwise(states, weight, bias, "none", [], ""))


def onednn_is_there() -> bool:
    """Whether this build of torch can call oneDNN."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def laid_out(weight: Tensor, rows: int) -> Tensor:
    """The weight in oneDNN's layout for about so many rows. Only oneDNN can read it."""
    return cast(Tensor, torch.ops.mkldnn._reorder_linear_weight(weight, rows))


def ready(model: Module, part: str, rows: int, bf16: bool) -> Module:
    """A copy of the model whose linear layers in one part are prepared for inputs of about `rows` rows.

    Otherwise oneDNN lays out each weight again for every product, and autocast casts it again. The copy is for
    inference: it has no gradients. Without oneDNN it computes as before. It shares everything else with the given
    model, which stays unchanged, since other threads may be using it.
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


def in_bf16(model: Module) -> Module:
    """The model again, with the weights of its linear layers and of its patches in bf16.

    Autocast would cast them at each use. All else is shared with the model given, which stays as it is.
    """
    own = copy.copy(model)
    own._modules = {name: None if child is None else in_bf16(child) for name, child in model._modules.items()}
    if isinstance(own, nn.Linear | nn.Conv2d):
        own._parameters = {
            name: None if weight is None else nn.Parameter(weight.detach().bfloat16(), weight.requires_grad)
            for name, weight in model._parameters.items()
        }
    return own


def can_lay_out(layer: Linear, dtype: torch.dtype) -> bool:
    """Whether oneDNN can compute this layer in that precision."""
    known = layer.weight.dtype in (torch.float32, dtype)
    if layer.weight.device.type != "cpu" or not known or not onednn_is_there():
        return False
    return dtype == torch.float32 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
