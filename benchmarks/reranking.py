"""Matching of candidates: a picture's keys and values once for all its texts, against the published way."""

from __future__ import annotations

import torch
from published import fused, image_tokens, text_tokens
from section import Section
from timing import interleaved

from albef.config import SIZES
from albef.model.albef import ALBEF

LENGTH, PADDED = 13, 30  # tokens of a caption; what the published evaluation pads all captions to
PUBLISHED_PAIRS, PAIRS = (
    32,
    128,
)  # of a picture in one pass; published: one text's or one picture's candidates at a time


def reranking_section(size: str, rounds: int) -> list[Section]:
    """Pairs a second and core, one picture against its candidates; and what bf16 does to the scores."""
    torch.manual_seed(0)
    config = SIZES[size]
    model = ALBEF(config, ("contrast", "itm")).eval().requires_grad_(False)
    pixels = torch.randn(1, 3, config.image_size, config.image_size)
    ids = torch.randint(5, config.vocab_size, (PAIRS, LENGTH))
    mask = torch.ones_like(ids, dtype=torch.bool)
    padding = 0, PADDED - LENGTH
    padded_ids, padded_mask = (
        torch.nn.functional.pad(part, padding)[:PUBLISHED_PAIRS] for part in (ids, mask)
    )
    with torch.inference_mode():
        image, text = model.encode_image(pixels), model.encode_text(ids, mask)
        plain_image = image_tokens(model, pixels)
        plain_text = text_tokens(model, padded_ids, padded_mask, 0.0)

    def published() -> torch.Tensor:
        with torch.inference_mode():
            states = fused(model, plain_text, padded_mask, plain_image.expand(PUBLISHED_PAIRS, -1, -1), 0.0)
            return model.itm_head(states[:, 0])

    def ours(bf16: bool) -> torch.Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model.match(text.tokens, mask, model.image_memory(image))

    cases = {
        "published, fp32": published,
        "ours, fp32": lambda: ours(False),
        "ours, bf16": lambda: ours(True),
    }
    timings = interleaved(cases, rounds)
    pairs = {name: PUBLISHED_PAIRS if name.startswith("published") else PAIRS for name in cases}
    rates = {name: pairs[name] / timing.seconds for name, timing in timings.items()}
    rows = []
    for name, rate in rates.items():
        logits = cases[name]()[:PUBLISHED_PAIRS].float()
        off = (logits - published()).abs().max().item()
        row = [
            name,
            f"{rate:.1f}",
            timings[name].spread,
            f"{rate / rates['published, fp32']:.1f}×",
            f"{off:.1g}",
        ]
        rows.append(row)
    text_ = (
        f"Size {size}, captions of {LENGTH} tokens (the published evaluation pads to {PADDED}), candidates of a picture "
        f"({PUBLISHED_PAIRS} in a pass as published, {PAIRS} of ours), its keys and values counted; one thread, CPU "
        f"time. The last column is the largest difference of a logit (random weights; logits spread over "
        f"{published().std().item():.2g})."
    )
    head = ["formulation", "pairs/s/core", "spread", "ratio", "off by"]
    return [Section("Re-ranking by matching", text_, head, rows)]
