"""The operations of each system at base size: once for an image, once for a text, and for each pair that is matched.

    python benchmarks/operations.py

Counted in the forward pass with torch's FlopCounterMode, without computing anything. A text has 20 tokens, an image the
pixels of its model (ALBEF: 256 a side) or 36 regions, and OSCAR's images 36 tokens of tags.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from albef.data.regions import Regions, Tags
from albef.model import kernels
from albef.model.kernels import Kernels
from albef.model_config import SIZES, ModelConfig
from albef.systems import SYSTEMS

MODELS: dict[str, ModelConfig] = {
    "CLIP ViT-B/32": SIZES["clip-vit-b-32"],
    "ALBEF": dataclasses.replace(SIZES["base"], image_size=256),
    "LXMERT": SIZES["lxmert-base"],
    "UNITER": SIZES["uniter-base"],
    "OSCAR": SIZES["oscar-base"],
}
TOKENS, TAGS = 20, 36
GIGA = 1e9


def operations(work: Callable[[], object]) -> float:
    """The floating-point operations of some work, in billions."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / GIGA


def counted(config: ModelConfig) -> dict[str, float]:
    """GFLOP once for an image, once for a text, and for each pair that is matched, by name."""
    system = SYSTEMS[config.system]
    with torch.device("meta"):
        model = system.model(config, system.heads).eval()
        ids, mask = torch.zeros(1, TOKENS, dtype=torch.long), torch.ones(1, TOKENS, dtype=torch.bool)
        tags = Tags(torch.zeros(1, TAGS, dtype=torch.long), torch.ones(1, TAGS, dtype=torch.bool))
    visual = model.sample_visual(1, torch.Generator()).to(torch.device("meta"))
    if isinstance(visual, Regions):
        visual = visual._replace(tags=tags)
    found = {"text": operations(lambda: model.encode_text(ids, mask))}
    if not model.can_match:
        return found | {"image": operations(lambda: model.encode_image(visual))}
    found["image"] = operations(lambda: model.image_memory(model.encode_image(visual)))
    text, memory = model.encode_text(ids, mask), model.image_memory(model.encode_image(visual))
    begun = operations(lambda: model.begin_match(text.tokens, mask))
    found["pair"] = operations(lambda: model.match(text.tokens, mask, memory)) - begun
    found["text"] += begun
    return found


def main() -> None:
    """Prints a table."""
    kernels.use(Kernels("plain", "torch"))
    table = Table("GFLOP", "once for an image", "once for a text", "for each pair")
    with torch.no_grad():
        for name, config in MODELS.items():
            found = counted(config)
            pair = f"{found['pair']:.2f}" if "pair" in found else "–"
            table.add_row(name, f"{found['image']:.2f}", f"{found['text']:.2f}", pair)
    Console().print(table)


if __name__ == "__main__":
    main()
