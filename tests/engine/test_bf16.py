"""An engine in bf16 has its weights cast once, when it is made."""

from pathlib import Path

import numpy as np
import torch

import toy
from albef.engine import Engine
from albef.model_directory import save_model

IMAGE = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
TEXTS = ["a fox", "two red cars"]


def test_no_weight_is_cast_in_use() -> None:
    engine = toy.engine()
    half = Engine(engine.model, engine.tokenizer, quiet=True, bf16=True)
    assert engine.model.itm_head.weight.dtype == torch.float32
    engine.bf16 = True  # under autocast alone
    for one, casts in ((engine, True), (half, False)):
        with toy.Casts(one.model) as found:
            features, scores = one.encode_texts(TEXTS), one.match([IMAGE, IMAGE], TEXTS)
        assert bool(found.counts) == casts
        if casts:
            expected = features, scores
    assert np.array_equal(features, expected[0])
    assert np.array_equal(scores, expected[1])


def test_its_weights_are_still_known_as_those_that_were_saved(tmp_path: Path) -> None:
    engine = toy.engine()
    save_model(tmp_path / "model", engine.model, engine.tokenizer, "")
    whole, half = (Engine.load(tmp_path / "model", "cpu", bf16=bf16) for bf16 in (False, True))
    assert half.model.itm_head.weight.dtype == torch.bfloat16
    assert half.dtype == torch.float32
    assert half.fingerprint == whole.fingerprint
