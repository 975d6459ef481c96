"""Converts weights of systems built on BERT's layers to the names of their published files, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from albef.model.checkpoints import LAYER


class Naming(NamedTuple):
    """How a system's published files name our tensors."""

    whole: Mapping[str, str]  # our parameter or its module → theirs
    layers: Mapping[str, str]  # what stands before the number of a layer, ours → theirs
    tied: Mapping[str, str]  # a second name of a tensor in their files → its first name

    def parts(self, name: str) -> list[str]:
        """Their names of the equal parts of our tensor `name` along its first dimension."""
        if name in self.whole:
            return [self.whole[name]]
        module, kind = name.rsplit(".", 1)
        if module in self.whole:
            return [f"{self.whole[module]}.{kind}"]
        found = re.fullmatch(r"(.+?)\.(\d+)\.(.+)", module)
        assert found, name
        return [f"{self.layers[found[1]]}.{found[2]}.{part}.{kind}" for part in LAYER[found[3]]]


def to_published(tensors: Mapping[str, Tensor], naming: Naming, with_tied: bool = True) -> dict[str, Tensor]:
    """Weights or gradients of our parameters under their published names, tied ones under each of theirs."""
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        names = naming.parts(name)
        state.update(zip(names, tensor.chunk(len(names)) if len(names) > 1 else [tensor], strict=True))
    heads = {name.partition(".")[0] for name in state}
    if with_tied:
        present = {alias: first for alias, first in naming.tied.items() if alias.partition(".")[0] in heads}
        state |= {alias: state[first] for alias, first in present.items()}
    return state


def from_published(state: Mapping[str, Tensor], names: Iterable[str], naming: Naming) -> dict[str, Tensor]:
    """Our parameters `names`, joined from a published state dict of the same sizes. Tied names may be absent.

    The oldest files call the weights and biases of norms gamma and beta.
    """
    known = {modern(name): tensor for name, tensor in state.items()}
    found = {}
    for name in names:
        parts = [known[part] for part in naming.parts(name)]
        found[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
    return found


def modern(name: str) -> str:
    """A published name as today's files have it."""
    return re.sub(r"gamma$", "weight", re.sub(r"beta$", "bias", name))
