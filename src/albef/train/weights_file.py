"""Files of weights as people have them: safetensors, PyTorch's without code, the initialisers of an ONNX graph."""

from __future__ import annotations

import os
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from albef.config import UserError
from albef.manifest import plain

NAMES = ("model.safetensors", "pytorch_model.bin")  # in this order where a folder holds both
SUFFIXES = (".safetensors", ".bin", ".pth", ".pt", ".onnx")
WRAPPERS = ("model", "state_dict")  # DeiT's and Lightning's


def find_weights(source: str, setting: str) -> Path:
    """The file of weights that a setting names, or that lies in the folder it names."""
    place = Path(os.path.expanduser(source))
    if place.is_file():
        return place
    if not place.is_dir():
        raise UserError(
            f"{setting}: {place} is neither a file nor a folder; nothing is downloaded, so save it first."
        )
    there = sorted(file for file in place.iterdir() if file.suffix in SUFFIXES)
    for name in NAMES:
        if place / name in there:
            return place / name
    if len(there) != 1:
        found = ", ".join(file.name for file in there[:3]) or "none"
        raise UserError(
            f"{setting}: {place} should hold {' or '.join(NAMES)} (files of weights there: {found}); name the file."
        )
    return there[0]


def read_weights(file: Path) -> dict[str, Tensor]:
    """The tensors of a file by name; no code in it is run.

    Raises `UserError` for a file that is no such file, is cut off, or would need to run code.
    """
    if file.suffix == ".safetensors":
        try:
            return load_file(file)
        except Exception as error:  # of a dtype that torch lacks it raises more than its own
            raise UserError(f"{file}: not readable as safetensors ({plain(error)}); get it again.") from None
    if file.suffix == ".onnx":
        return read_onnx(file)
    try:
        with warnings.catch_warnings():  # of other pickle protocols than torch's
            warnings.simplefilter("ignore")
            found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UserError(
            f"{file}: no PyTorch file of tensors alone (it may be cut off, or would run code when read); get the "
            f"safetensors file of these weights."
        ) from None
    except Exception as error:  # an unpickler on wrong bytes raises almost anything
        raise UserError(f"{file}: not readable as a PyTorch file ({plain(error)}); get it again.") from None
    for wrapper in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(wrapper), Mapping):
            found = found[wrapper]
    items = found.items() if isinstance(found, Mapping) else ()
    state = {name: tensor for name, tensor in items if isinstance(name, str) and isinstance(tensor, Tensor)}
    if not state:
        raise UserError(f"{file}: holds no tensors by name; take a state dict.")
    return state


def read_onnx(file: Path) -> dict[str, Tensor]:
    """The initialisers of an ONNX graph under the names that they had in PyTorch.

    The exporter transposes the weight of a linear layer and gives it a number for a name, but the bias that is added
    to the product keeps its own; and it cuts learnt positions in two, [CLS] and patches, where the graph resizes them.
    """
    try:
        import onnx
    except ImportError:
        raise UserError(f"{file}: ONNX files need the package onnx: pip install onnx.") from None
    try:
        graph = onnx.load(file, load_external_data=False).graph
        if any(tensor.external_data for tensor in graph.initializer):
            raise UserError(f"{file}: its tensors lie in another file; export it as one.")
        state = {t.name: torch.from_numpy(onnx.numpy_helper.to_array(t).copy()) for t in graph.initializer}
    except UserError:
        raise
    except Exception as error:  # of a damaged file it raises what its parts do
        raise UserError(f"{file}: not readable as ONNX ({plain(error)}); get it again.") from None
    return with_positions(with_linear_weights(state, graph.node), graph.node)


def with_linear_weights(state: Mapping[str, Tensor], nodes: Any) -> dict[str, Tensor]:
    """The state with the second factor of every product under the name of the bias that is added to it."""
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
    """The state with the positions of [CLS], which the graph joins, and of the patches, which it reshapes, as one."""
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
