"""Student, teacher and optimizer sharded over processes (FSDP2), for models too large for one device."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from albef import distributed
from albef.model.layers import CrossAttention, FeedForward, SelfAttention
from albef.tasks.base import Task


def shard(task: Task, optimizer: torch.optim.Optimizer, device: torch.device, bf16: bool = False) -> None:
    """Keeps only this process's slice of every parameter and of the optimizer's state.

    Both come whole, as built or loaded, so a checkpoint does not depend on the number of processes. The matrices of a
    layer are gathered only while it computes, in bf16 if that is used. All other parameters (embeddings, norms, heads)
    stay gathered during a step, in fp32. Buffers, such as the queue, stay whole in every process.
    """
    # Layers return views, and nobody changes them in place.
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    # Matrices are cast to bf16 before they are gathered. Parameters that autocast leaves in fp32 stay so.
    policy = MixedPrecisionPolicy(cast_forward_inputs=False)
    if bf16:
        policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    whole_parameters = list(task.student.parameters())
    for module in list(task.modules()):
        # This module is called on its own, once per image, before its layer.
        if isinstance(module, CrossAttention) and module.key_value is not None:
            fully_shard(module.key_value, mesh=mesh, mp_policy=policy)
    for module in list(task.modules()):
        if isinstance(module, SelfAttention | CrossAttention | FeedForward):
            fully_shard(module, mesh=mesh, mp_policy=policy)
        if isinstance(module, SelfAttention):
            for method in module.called:
                register_fsdp_forward_method(module, method)
    fully_shard(task, mesh=mesh)
    register_fsdp_forward_method(task, "prepare")
    task.to(device)  # moves the buffers

    slices = dict(zip(whole_parameters, task.student.parameters(), strict=True))
    for group in optimizer.param_groups:
        group["params"] = [slices[parameter] for parameter in group["params"]]
    for parameter, own in slices.items():
        if parameter in optimizer.state:
            optimizer.state[own] = {
                name: cut(value, own) for name, value in optimizer.state.pop(parameter).items()
            }


def cut(value: Tensor, like: nn.Parameter) -> Tensor:
    """This process's slice of an optimizer tensor, or the tensor itself if it is a single number."""
    assert isinstance(like, DTensor)
    if value.shape != like.shape:
        return value.to(like.device)
    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements, src_data_rank=None)


def whole(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The whole tensors, gathered in the first process one at a time. All processes must call this."""
    found = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
            tensor = tensor.cpu() if distributed.rank() == 0 else tensor[:0]
        found[name] = tensor
    return found


def plain(tensor: Tensor) -> Tensor:
    """A result over all slices, as an ordinary tensor."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
