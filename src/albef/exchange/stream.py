"""Writes a safetensors file tensor by tensor, so that a large model need not fit into memory."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


class Place(NamedTuple):
    """The dtype and shape of a tensor that is written later."""

    dtype: torch.dtype
    shape: torch.Size


def write_tensors(file: Path, places: Mapping[str, Place], tensors: Iterable[Tensor]) -> None:
    """Writes the tensors in the safetensors format. They must come in the order of `places`."""
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, (dtype, shape) in places.items():
        end = start + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": TYPES[dtype], "shape": list(shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # data begins at a multiple of 8 bytes
    with file.open("wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        for place, tensor in zip(places.values(), tensors, strict=True):
            assert (tensor.dtype, tensor.shape) == place
            handle.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
