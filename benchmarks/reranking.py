"""Matching of candidates: an image's keys and values once for all its texts, against the published way."""

from __future__ import annotations

from collections.abc import Callable

import torch
from limits import Limits
from published import fused, image_tokens, text_tokens
from section import Section
from step import operations
from timing import interleaved
from torch import Tensor

from albef.config import SIZES
from albef.evaluation.ranking import ON_CPU
from albef.model import kernels
from albef.model.albef import ALBEF

LENGTH, PADDED = 13, 30  # tokens of a caption; what the published evaluation pads all captions to
# Of an image in one pass; published: one text's or one image's candidates at a time.
PUBLISHED_PAIRS, PAIRS = 32, ON_CPU.pairs


def reranking_section(limits: Limits, size: str, rounds: int) -> list[Section]:
    """Pairs a second and core, one image against its candidates; and what bf16 does to the scores."""
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
        plain_image = image_tokens(model, pixels)
        plain_text = text_tokens(model, padded_ids, padded_mask, 0.0)

    def published() -> Tensor:
        with torch.inference_mode():
            states = fused(model, plain_text, padded_mask, plain_image.expand(PUBLISHED_PAIRS, -1, -1), 0.0)
            return model.itm_head(states[:, 0])

    def cases(single: ALBEF, half: ALBEF) -> dict[str, Callable[[], Tensor]]:
        return {
            "published, fp32": published,
            "ours, fp32": matching(single, pixels, ids, mask, bf16=False),
            "ours, bf16": matching(half, pixels, ids, mask, bf16=True),
        }

    counts = {name: operations(case) for name, case in cases(model, model).items()}
    ready = cases(
        *(kernels.ready(model, "fusion_encoder", PAIRS * LENGTH, bf16=bf16) for bf16 in (False, True))
    )
    timings = interleaved(ready, rounds)
    logits = {name: case()[:PUBLISHED_PAIRS].float() for name, case in ready.items()}
    exact = logits["published, fp32"]
    most = limits.of(True) * 1e9 * PAIRS / counts["ours, bf16"]
    pairs = {name: PUBLISHED_PAIRS if name.startswith("published") else PAIRS for name in ready}
    rates = {name: pairs[name] / timing.seconds for name, timing in timings.items()}
    found = [
        [
            name,
            f"{rate:.1f}",
            timings[name].spread,
            f"{rate / rates['published, fp32']:.1f}×",
            f"{counts[name] / pairs[name] / 1e9:.3g}",
            f"{counts[name] / timings[name].seconds / 1e9 / limits.of('bf16' in name):.0%}",
            f"{(logits[name] - exact).abs().max().item():.1g}",
        ]
        for name, rate in rates.items()
    ]
    text = (
        f"Size {size}, one thread, CPU time, captions of {LENGTH} tokens. "
        f"The published evaluation pads them to {PADDED}. "
        f"A pass has {PUBLISHED_PAIRS} candidates of an image as published, and {PAIRS} in ours. "
        "Computing the image's keys and values is included. What is computed once for each text is not: "
        "the text encoder and, in ours, the self-attention of the first fusion layer. "
        '"Off by" is the largest difference of a logit from published fp32. '
        f"The weights are random, and the logits have a standard deviation of {exact.std().item():.2g}. "
        f"At the limit of the bf16 products, {most:.0f} pairs a second would be the most, "
        f"{most / rates['published, fp32']:.1f}×."
    )
    head = ["formulation", "pairs/s/core", "spread", "ratio", "GFLOP a pair", "of the limit", "off by"]
    return [Section("How fast is re-ranking by ITM?", text, head, found)]


def matching(model: ALBEF, pixels: Tensor, ids: Tensor, mask: Tensor, bf16: bool) -> Callable[[], Tensor]:
    """A pass as `evaluation/ranking.py` makes it: of one image, with texts that were begun before."""
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        image, text = model.encode_image(pixels), model.encode_text(ids, mask)
        begun = model.begin_match(text.tokens, mask)
    stored = begun.bfloat16() if bf16 else begun

    def case() -> Tensor:
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model.finish_match(stored, mask, model.image_memory(image))

    return case
