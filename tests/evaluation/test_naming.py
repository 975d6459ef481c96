"""Maps of words: those that lie on their own thing are told from those that lie on another."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from albef.config import DataConfig
from albef.data.pictograms.references import MOST_NAMED
from albef.data.records import Naming
from albef.data.sources import open_source
from albef.engine import Engine
from albef.evaluation import naming
from albef.evaluation.grounding import evaluate_grounding
from albef.evaluation.naming import mean_inside, on_its_own, places_of
from albef.model.maps import Maps

LEFT, RIGHT, BELOW = (0.0, 0.0, 4.0, 4.0), (6.0, 0.0, 4.0, 4.0), (2.0, 6.0, 8.0, 4.0)


def lit_at(*boxes: tuple[tuple[float, float, float, float], float]) -> np.ndarray:
    map_ = np.zeros((10, 10), np.float32)
    for (left, top, width, height), light in boxes:
        map_[int(top) : int(top + height), int(left) : int(left + width)] = light
    return map_


def test_a_map_is_right_where_it_lies_more_on_its_own_thing() -> None:
    map_ = lit_at((LEFT, 0.5), (RIGHT, 0.2), (BELOW, 0.3))
    assert [on_its_own(map_, [LEFT, RIGHT, BELOW], thing) for thing in range(3)] == [1.0, 0.0, 0.5]
    assert on_its_own(map_, [LEFT, RIGHT], 0) == 1
    assert on_its_own(np.zeros((10, 10)), [LEFT, RIGHT], 0) == 0.5
    assert mean_inside(map_, BELOW) == pytest.approx(0.3)


@given(st.integers(0, 2**32 - 1), st.integers(2, MOST_NAMED))
def test_one_map_for_all_words_is_right_in_half_of_all_cases(seed: int, count: int) -> None:
    map_ = np.random.default_rng(seed).random((10, 10))
    boxes = [LEFT, RIGHT, BELOW][:count]
    assert np.mean([on_its_own(map_, boxes, thing) for thing in range(count)]) == pytest.approx(0.5)


def test_places_are_those_of_all_pieces(engine: Engine) -> None:
    said = "two red cars, and a large house"
    ids, _ = engine.text_tokens([said])
    pieces = engine.tokenizer.pieces(ids[0].tolist())
    for name in ("red cars", "house"):
        found = "".join(pieces[place] for place in places_of(engine, said, name)).replace("##", "")
        assert found == name.replace(" ", "")
    assert places_of(engine, said, "car") == []
    assert places_of(engine, said, "fox") == []


@pytest.mark.parametrize("swapped", [False, True])
def test_what_is_measured_follows_the_maps(
    engine: Engine, swapped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = open_source(DataConfig(source="pictograms:grounding", count=12), "test", 1, 16)
    namings = [found for n in range(12) if (found := source.record(n, 0).naming) is not None]
    left = iter(found for _ in ("itm", "itc") for found in namings)
    seen: list[Naming] = []

    def maps(
        model: object,
        pixels: torch.Tensor,
        ids: torch.Tensor,
        mask: torch.Tensor,
        words: torch.Tensor,
        score: str,
    ) -> Maps:
        """On each word's own thing, or on the next one."""
        assert model is engine.model
        assert pixels.shape == (len(ids), 3, 16, 16)
        assert mask.shape == ids.shape
        found = np.zeros((len(ids), words.shape[1], 16, 16), np.float32)
        for row in range(len(ids)):
            said = next(left)
            seen.append(said)
            boxes = [box for _, box in said.things]
            for number in range(len(boxes)):
                x, y, width, height = boxes[(number + swapped) % len(boxes)]
                found[row, number, round(y) : round(y + height), round(x) : round(x + width)] = 1
            assert words[row].any(1).sum() == len(boxes)
        return Maps(np.zeros((len(ids), 16, 16), np.float32), found)

    monkeypatch.setattr(naming, "score_maps", maps)
    metrics = dict(evaluate_grounding(engine, source, "test"))
    assert len(seen) == 2 * len(namings)
    if swapped:
        assert metrics["test/itc_words"] < 0.4
    else:
        assert metrics["test/itc_words"] == metrics["test/itm_words"] == 1
    assert metrics["test/itc_words_low"] <= metrics["test/itc_words"] <= metrics["test/itc_words_high"]
