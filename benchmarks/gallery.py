"""Peak memory of evaluating a gallery, above that of the model; run in a process of its own by `memory.py`."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from albef.config import SIZES
from albef.data.text import Tokenizer
from albef.engine import Engine, ImageInput
from albef.evaluation import ranking
from albef.evaluation.evaluate import recalls
from albef.model.albef import ALBEF

WORDS = tuple("abcdefghijklmnopqrst")
WHOLE_TOP_K = 2  # candidates that are really matched, so that it takes minutes and not days


def resident(name: str) -> int:
    """Bytes of memory of this process, by the kernel's name: VmRSS now, VmHWM at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"{name} is not reported here")


def above_now(work: Callable[[], object]) -> dict[str, float]:
    """The peak of resident memory during the work above that at its beginning, and its wall time."""
    before, started = resident("VmRSS"), time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    work()
    return {"bytes": resident("VmHWM") - before, "seconds": time.perf_counter() - started}


def captions_of(count: int, rng: np.random.Generator) -> list[str]:
    """Captions of 7 to 18 words."""
    return [" ".join(rng.choice(WORDS, int(rng.integers(7, 19)))) for _ in range(count)]


def whole(size: str, pictures: int, captions: int) -> dict[str, float]:
    """Features, candidates, matching and ranks of a gallery of noise by random weights, in bf16 where the CPU has it."""
    rng = np.random.default_rng(0)
    texts = captions_of(pictures * captions, rng)
    tokenizer = Tokenizer.train(WORDS, 256)
    # One layer of either encoder: without gradients the next one would use the same memory again.
    config = dataclasses.replace(
        SIZES[size],
        vocab_size=max(SIZES[size].vocab_size, tokenizer.vocab_size),
        image_depth=1,
        text_depth=1,
    )
    model = ALBEF(config, ("contrast", "itm")).requires_grad_(False)
    engine = Engine(model, tokenizer, quiet=True, bf16=torch.cpu._is_avx512_bf16_supported())
    # Small ones, so that only what evaluation holds is counted.
    images: Sequence[ImageInput] = list(rng.integers(0, 256, (pictures, 24, 24, 3), dtype=np.uint8))
    engine.match(images[:1], texts[:1])
    of_text = [number // captions for number in range(len(texts))]
    of_image = [list(range(captions * row, captions * (row + 1))) for row in range(pictures)]

    def work() -> None:
        features = engine.encode_images(images), engine.encode_texts(texts)
        dict(recalls(engine, "all", images, texts, features, of_image, of_text, WHOLE_TOP_K, seed=0))

    return above_now(work)


def bookkeeping(size: str, pictures: int, captions: int, top_k: int) -> dict[str, float]:
    """Candidates, pairs and ranks of a gallery with random features, and random numbers as scores of matching."""
    rng, width = np.random.default_rng(0), SIZES[size].feature_width
    of_images, of_texts = (
        rng.standard_normal((count, width), dtype=np.float32) for count in (pictures, pictures * captions)
    )
    with torch.device("meta"):
        engine = Engine(ALBEF(SIZES["tiny"], ("contrast", "itm")), Tokenizer.train(WORDS, 256), quiet=True)
    engine.model.temperature = torch.nn.Parameter(torch.tensor([0.07]))
    ranking.match_scores = lambda _, __, ___, pairs: rng.standard_normal(len(pairs), dtype=np.float32)
    of_text = [number // captions for number in range(len(of_texts))]
    of_image = [list(range(captions * row, captions * (row + 1))) for row in range(pictures)]
    things = range(pictures), range(len(of_texts))

    def work() -> None:
        features = of_images, of_texts
        dict(recalls(engine, "all", *things, features, of_image, of_text, top_k, seed=0))  # type: ignore[arg-type]

    return above_now(work)


if __name__ == "__main__":
    what, size, *numbers = sys.argv[1:]
    pictures, captions, top_k = map(int, numbers)
    found = (
        whole(size, pictures, captions) if what == "whole" else bookkeeping(size, pictures, captions, top_k)
    )
    print(json.dumps(found))
