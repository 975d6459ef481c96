"""Reads files of weights: safetensors, PyTorch files without code, and initialisers of ONNX graphs."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from albef.config import UserError
from albef.manifest import plain

NAMES = ("model.safetensors", "pytorch_model.bin")  # in this order where a folder holds both
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".onnx")
WRAPPERS = ("model", "state_dict")  # of DeiT and of Lightning


def find_weights(source: str, setting: str, first: Sequence[str] = NAMES) -> Path:
    """The file of weights that a setting names, directly or by its folder. In a folder the `first` names come first."""
    place = Path(os.path.expanduser(source))
    if place.is_file():
        return place
    if not place.is_dir():
        raise UserError(
            f"{setting}: {place} is neither a file nor a folder. albef does not download weights: save them there first."
        )
    there = sorted(file for file in place.iterdir() if file.suffix in SUFFIXES)
    for name in first:
        if place / name in there:
            return place / name
    if len(there) != 1:
        found = ", ".join(file.name for file in there[:3]) or "none"
        raise UserError(
            f"{setting}: {place} holds neither {' nor '.join(NAMES)} (its files of weights: {found}). Name the file."
        )
    return there[0]


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name, without running any code in it.

    Raises `UserError` for a file of another kind, a truncated file, and a file that would need to run code.
    """
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except Exception as error:  # for a dtype that torch lacks, safetensors raises other errors
            raise UserError(
                f"{file}: cannot be read as safetensors ({plain(error)}). Download it again."
            ) from None
    if file.suffix == ".onnx":
        return read_onnx(file)
    try:
        with warnings.catch_warnings():  # torch warns about other pickle protocols
            warnings.simplefilter("ignore")
            found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{file}: not a PyTorch file of tensors only. It is truncated, or it would run code when read. Take these "
            f"weights as a safetensors file."
        ) from None
    except Exception as error:  # on wrong bytes an unpickler raises almost anything
        raise UserError(
            f"{file}: cannot be read as a PyTorch file ({plain(error)}). Download it again."
        ) from None
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    items = found.items() if isinstance(found, Mapping) else ()
    state = {name: tensor for name, tensor in items if isinstance(name, str) and isinstance(tensor, Tensor)}
    if not state:
        raise UserError(f"{file}: holds no named tensors. Take a state dict.")
    return state


def read_onnx(file: Path) -> dict[str, Tensor]:
    """The initialisers of an ONNX graph under the names that they had in PyTorch.

    The exporter transposes the weight of a linear layer and replaces its name by a number. The bias keeps its name, so
    the weight's name follows from it. If the graph resizes positions, they come in two parts: [CLS] and patches.
    """
    try:
        import onnx
    except ImportError:
        raise UserError(
            f"{file}: reading ONNX files needs the package onnx. Install it: pip install onnx."
        ) from None
    try:
        graph = onnx.load(file, load_external_data=False).graph
        if any(tensor.external_data for tensor in graph.initializer):
            raise UserError(
                f"{file}: its tensors are stored in another file. Export the model as a single file."
            )
        state = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in graph.initializer}
    except UserError:
        raise
    except Exception as error:  # on a damaged file its parts raise any error
        raise UserError(f"{file}: cannot be read as ONNX ({plain(error)}). Download it again.") from None
    return with_positions(with_linear_weights(state, graph.node), graph.node)


def with_linear_weights(state: Mapping[str, Tensor], nodes: Any) -> dict[str, Tensor]:
    """The state with every linear layer's weight named after its bias."""
    found = dict(state)
    products = {node.output[0]: node.input[1] for node in nodes if node.op_type == "MatMul"}
    for node in nodes:
        if node.op_type != "Add":
            continue
        biases = [name for name in node.input if name.endswith(".bias") and name in state]
        factors = [products[name] for name in node.input if products.get(name) in state]
        if biases and factors:
            found.pop(factors[0], None)
            found[f"{biases[0].removesuffix('bias')}weight"] = state[factors[0]].T.contiguous()
    return found


def with_positions(state: Mapping[str, Tensor], nodes: Any) -> dict[str, Tensor]:
    """The state with the positions of [CLS] and of the patches joined to one tensor."""

    found = dict(state)
    root = next((name.removesuffix("cls_token") for name in state if name.endswith("cls_token")), None)
    if root is None:
        return found
    parts = [
        name
        for kind in ("Concat", "Reshape")
        for node in nodes
        if node.op_type == kind
        for name in node.input
        if name in found and "::" in name and found[name].ndim == 3
    ]
    if len(parts) == 2:
        found[f"{root}position_embeddings"] = torch.cat([found.pop(name) for name in parts], 1)
    return found
