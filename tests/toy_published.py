"""The six published state dicts at toy size: real names, every width and depth scaled down, random values."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch
from torch import Tensor

NAMES: dict[str, dict[str, list[int]]] = json.loads(
    (Path(__file__).parent / "golden" / "official-names.json").read_text()
)
# Every published width and its toy: 30522 pieces, 65536 places, 3 × 768 and so on.
WIDTHS = {30522: 40, 65536: 10, 3072: 32, 2304: 48, 768: 16, 512: 64, 256: 8, 257: 5, 577: 10, 16: 8}
KEPT_LAYERS = {"visual_encoder": 2, "text_decoder": 2}
TEXT_LAYERS = 6  # the first two of them stay


def toy_state(name: str, seed: int = 0) -> dict[str, Tensor]:
    """A state dict with the published names of 2 + 2 layers (2 + 2 pairs of NLVR2), tied names being one tensor."""
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for full, shape in NAMES[name].items():
        toy = toy_name(full, paired="nlvr" in name)
        if toy is None:
            continue
        sizes = [WIDTHS.get(size, size) for size in shape]
        if full.endswith("position_ids"):
            state[toy] = torch.arange(sizes[1])[None]
        elif full == "queue_ptr":
            state[toy] = torch.tensor([3])
        elif full == "idx_queue":
            state[toy] = torch.randint(-100, 50, sizes, generator=generator)
        else:
            state[toy] = torch.randn(sizes, generator=generator) * 0.1
    for alias in state:
        source = tied_to(alias, paired="nlvr" in name)
        if source is not None:
            state[alias] = state[source]
    return state


def toy_name(name: str, paired: bool) -> str | None:
    """The name in a model of fewer layers; None for a layer that is left out."""
    found = re.fullmatch(r"(\w+?)(_m)?\.(?:.*\.)?(?:blocks|layer)\.(\d+)\..*", name)
    if found is None:
        return name
    component, depth = found[1], int(found[3])
    if component != "text_encoder":
        return name if depth < KEPT_LAYERS[component] else None
    if depth >= TEXT_LAYERS:
        fusion = 4 if paired else 2
        return name.replace(f"layer.{depth}.", f"layer.{depth - 4}.") if depth < 6 + fusion else None
    return name if depth < 2 else None


def tied_to(name: str, paired: bool) -> str | None:
    """The name of the same tensor that comes first."""
    root, found, kind = name.partition("cls.predictions.decoder.")
    if found:
        first = "bert.embeddings.word_embeddings.weight" if kind == "weight" else "cls.predictions.bias"
        return root + first
    pair = re.fullmatch(r"(.*\.layer\.)(\d+)(\.crossattention\.self\.(?:key|value)\..*)", name)
    if paired and pair and int(pair[2]) % 2:
        return f"{pair[1]}{int(pair[2]) - 1}{pair[3]}"
    return None
