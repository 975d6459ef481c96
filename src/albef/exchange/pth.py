"""Reads published `.pth` files memory-mapped and without running code in them, and writes them without a second copy."""

from __future__ import annotations

import dataclasses
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from albef.config import ModelConfig, UserError
from albef.disk import check_room
from albef.writing import check_file, whole_file

ZIP = b"PK\x03\x04"  # the format since torch 1.6; older files cannot be memory-mapped
WRAPPERS = ("model", "state_dict")  # of ALBEF's scripts, of open_clip's
OWN_KEY = "albef"  # under "config" in files written by albef
# Settings that weights do not show. Sizes always come from the weights.
TOLD = (
    "image_heads",
    "text_heads",
    "dropout",
    "fuse_placed_patches",
    "max_tokens",
    "max_words",
    "append_sep",
    "mean",
    "std",
    "transparent",
)


class Published(NamedTuple):
    """A checkpoint's state dict without its wrapper, and what else the file holds."""

    file: Path
    state: dict[str, Tensor]
    beside: list[str]  # what the file holds besides the model: "optimizer", …
    told: dict[str, Any]  # settings of the model, in files written by albef
    mapped: bool  # False: loaded whole, although the tensors could have been memory-mapped
    scripted: bool = False  # whether it is a TorchScript archive


def read_pth(file: Path) -> Published:
    """The state dict of a checkpoint, in one of `WRAPPERS` or bare, with or without "module." before its names.

    Tensors are memory-mapped (files older than torch 1.6 are loaded whole). Raises `UserError` for a file that is not a
    checkpoint, is truncated, or would run code.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file.")
    with file.open("rb") as handle:
        mapped = handle.read(4) == ZIP
    content = load(file, mapped)
    outer = content if isinstance(content, Mapping) else {}
    wrapper = next((name for name in WRAPPERS if isinstance(outer.get(name), Mapping)), None)
    state = outer[wrapper] if wrapper else outer
    others = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if not state or others:
        what = f"its {others[0]!r} is no tensor" if others else "it holds no tensors by name"
        raise UserError(f"{file}: not the state dict of a model ({what}); give a published checkpoint.")
    for name, tensor in state.items():
        if not is_plain(tensor):
            raise UserError(f"{file}: {name} is no plain tensor in memory; give a published checkpoint.")
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            raise UserError(f"{file}: {name} claims more than the file holds. Download the file again.")
    beside = [str(name) for name in outer if name != wrapper] if wrapper else []
    return Published(file, without_prefix(state), beside, told_by(outer.get("config")), mapped)


def without_prefix(state: Mapping[Any, Tensor]) -> dict[str, Tensor]:
    """The tensors under the names that they had before several processes trained them."""
    return {str(name).removeprefix("module."): tensor for name, tensor in state.items()}


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is a plain one in memory: not sparse, nested, quantised or on the meta device."""
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and not tensor.is_nested
        and not tensor.is_quantized
    )


def load(file: Path, mapped: bool) -> Any:
    """The content of a `.pth` file: tensors and plain values. No code in it is run."""
    try:
        with warnings.catch_warnings():  # about old pickle protocols
            warnings.simplefilter("ignore")
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # on wrong bytes an unpickler raises almost anything
        found = (
            re.search(r"GLOBAL ([\w.]+)", str(error)) if isinstance(error, pickle.UnpicklingError) else None
        )
        if found:
            raise UserError(
                f"{file}: was not read, since reading it would call {found[1]}, which could run anything. "
                f"Ask for a file that only holds the model's tensors."
            ) from None
        raise UserError(
            f"{file}: not a checkpoint, or cut off ({type(error).__name__}); "
            f"compare its size with the original's and get it again."
        ) from None


def told_by(config: object) -> dict[str, Any]:
    """The model's settings in a file written by albef. Empty for other files."""
    given = config.get(OWN_KEY) if isinstance(config, Mapping) else None
    if not isinstance(given, Mapping):
        return {}
    defaults = dataclasses.asdict(ModelConfig())
    return {name: given[name] for name in TOLD if type(given.get(name)) is type(defaults[name])}


def check_new(file: Path) -> None:
    """Raises `UserError` for a file that exists or cannot be written."""
    check_file(file)
    if file.exists():
        raise UserError(f"{file}: exists already. Choose another name.")


def write_pth(file: Path, state: Mapping[str, Tensor], config: ModelConfig | None) -> None:
    """Writes `{"model": state}`, and the model's settings under "config", whole or not at all.

    Without a configuration it writes the state dict alone, without a wrapper.
    Tensors that share memory are written once. Raises `UserError` for a file that exists.
    """
    check_new(file)
    own: dict[tuple[int, torch.Size], Tensor] = {}
    for tensor in state.values():
        key = tensor.data_ptr(), tensor.shape
        own[key] = own.get(key, with_own_storage(tensor))
    model = {name: own[tensor.data_ptr(), tensor.shape] for name, tensor in state.items()}
    check_room(file, sum(tensor.nbytes for tensor in own.values()))
    content: dict[str, Any] = model
    if config is not None:
        told = {name: getattr(config, name) for name in TOLD}
        content = {"model": model, "config": {OWN_KEY: told}}
    # An open file, not its name: if torch opens the file, it hides the system's error.
    with whole_file(file) as temporary, temporary.open("wb") as handle:
        torch.save(content, handle)


def with_own_storage(tensor: Tensor) -> Tensor:
    """The tensor as a whole storage, without a copy, since `torch.save` writes whole storages."""
    tensor = tensor.detach().contiguous()
    raw = torch.from_numpy(tensor.reshape(-1).view(torch.uint8).numpy())
    return raw.view(tensor.dtype).reshape(tensor.shape)
