"""Student, teacher and optimizer sharded over processes (FSDP2), for models too large for one device."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from albef import distributed
from albef.model.image_encoder import ImageBlock
from albef.model.layers import CrossAttention
from albef.model.text_encoder import FusionLayer, TextLayer
from albef.tasks.base import Task


def shard(task: Task, optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Keeps only this process's slice of every parameter and of the optimizer's state.

    Both come whole, as built or loaded, so a checkpoint does not depend on the number of processes. A layer is gathered
    only while it computes. Parameters outside of layers (embeddings, heads) stay gathered during a step. Buffers, such
    as the queue, stay whole in every process.
    """
    mesh = init_device_mesh(device.type, (distributed.world_size(),))
    whole_parameters = list(task.student.parameters())
    for module in list(task.modules()):
        # This module is called on its own, once per image, before its layer.
        if isinstance(module, CrossAttention) and module.key_value is not None:
            fully_shard(module.key_value, mesh=mesh)
    for module in list(task.modules()):
        if isinstance(module, ImageBlock | TextLayer):
            fully_shard(module, mesh=mesh)
        if isinstance(module, FusionLayer):
            register_fsdp_forward_method(module, "fuse")
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
