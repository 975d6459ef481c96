"""Whether the tensors of a published file are those of one model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from albef.config import UserError
from albef.exchange.stream import TYPES


def check_fit(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], tied: Mapping[str, str], file: Path
) -> None:
    """Raises `UserError` unless a state dict has all tensors that are expected.

    `tied` are second names of tensors: they may be absent, but must be equal to the first.
    """
    problems = [f"{name} is missing" for name in expected if name not in state and name not in tied]
    problems += [
        f"{name} is {list(state[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    problems += [
        f"{name} holds {state[name].dtype}"
        for name in expected
        if name in state and (state[name].dtype not in TYPES or not state[name].is_floating_point())
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"{file}: its parts do not fit together ({'; '.join(problems[:3])}{more}). The expected widths are those "
            f"of the embeddings and the first layers, so this model was changed or is damaged. Take the published one."
        )
    for second, first in tied.items():
        if second in state and second in expected and not torch.equal(state[second], state[first]):
            raise UserError(
                f"{file}: {second} differs from {first}, but in the published models they are equal. This is another "
                f"model."
            )
