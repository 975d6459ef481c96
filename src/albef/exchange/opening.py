"""Opens a published file of any system: its tensors by name, without running anything in it."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import safe_open
from torch import Tensor

from albef.config import UserError
from albef.errors import reading
from albef.exchange.pth import Published, read_pth, without_prefix
from albef.exchange.torchscript import is_torchscript, read_torchscript
from albef.manifest import plain
from albef.model_directory import CONFIG_FILE
from albef.train.weights_file import NAMES, find_weights

# A folder of open_clip's may hold these beside weights of its image encoder alone.
WHOLE = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", *NAMES)


def open_published(place: Path) -> Published:
    """What a file holds, or the file of weights in a folder. Tensors are memory-mapped where the format allows it.

    Raises `UserError` for a file that is cut off, of another kind, or would run code, and for a folder without weights.
    """
    reading.set(place)
    if place.is_dir():
        refuse_model_directory(place)
        file = find_weights(str(place), "the checkpoint", WHOLE)
    else:
        file = place
    if not file.is_file():
        raise UserError(f"{file}: no such file or folder.")
    if file.suffix == ".safetensors":
        return Published(file, without_prefix(mapped(file)), [], {}, mapped=True)
    if is_torchscript(file):
        return Published(file, without_prefix(read_torchscript(file)), [], {}, mapped=True, scripted=True)
    return read_pth(file)


def refuse_model_directory(folder: Path) -> None:
    """Raises `UserError` for what `albef import` would make."""
    try:
        found = json.loads((folder / CONFIG_FILE).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(found, dict) and "format_version" in found:
        raise UserError(f"{folder}: is a model directory already; every command takes it as it is.")


def mapped(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, memory-mapped."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:  # for a dtype that torch lacks, safetensors raises other errors
        raise UserError(f"{file}: not a readable safetensors file ({plain(error)}); copy it again.") from None
