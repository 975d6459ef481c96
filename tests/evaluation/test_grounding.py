"""Grounding by maps whose right answers are counted by hand, with misses among them."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch

import toy
from albef.config import UserError
from albef.data.records import Box, Record
from albef.evaluation import grounding
from albef.evaluation.grounding import activation, check_inside, evaluate_grounding, grounded
from albef.model.maps import Maps

GRID = 2  # of the toy model's maps


class Phrases:
    """Records of grey pictures, 20 pixels a side, with one box each."""

    couple = 1

    def __init__(self, boxes: Sequence[Box], proposals: Sequence[tuple[Box, ...]] = ()) -> None:
        self.boxes, self.proposals = boxes, proposals or [()] * len(boxes)

    def __len__(self) -> int:
        return len(self.boxes)

    def record(self, index: int, epoch: int) -> Record:
        assert epoch == 0
        grey = np.full((20, 20, 3), 100, np.uint8)
        box, proposals = self.boxes[index], self.proposals[index]
        return Record(grey, ("a fox",), index, None, "here", box=box, proposals=proposals)


def spot(left: int, top: int, side: int = 4) -> np.ndarray:
    """A map of 20 × 20 that is one in a square and falls off from its top left corner."""
    map_ = np.zeros((20, 20), np.float32)
    map_[top : top + side, left : left + side] = np.linspace(1, 0.9, side * side).reshape(side, side)
    return map_


def one(box: Box, *proposals: Box) -> Record:
    return Phrases([box], [proposals]).record(0, 0)


@pytest.mark.parametrize(
    ("box", "pointed"),
    [
        ((8.0, 4.0, 4.0, 4.0), True),
        ((8.6, 4.0, 4.0, 4.0), False),  # the middle of the highest pixel is at 8.5, 4.5
        ((4.0, 4.0, 4.4, 4.0), False),
        ((4.0, 4.0, 4.6, 4.0), True),
        ((8.0, 4.6, 4.0, 4.0), False),
        ((8.0, 0.0, 4.0, 4.4), False),
        ((8.0, 0.0, 4.0, 4.6), True),
        ((4.0, 8.0, 4.0, 4.0), False),  # row and column are not the other
        ((8.5, 4.0, 4.0, 4.0), True),  # the edges are inside
        ((8.0, 4.5, 4.0, 4.0), True),
        ((4.0, 4.0, 4.5, 4.0), True),
        ((8.0, 0.0, 4.0, 4.5), True),
    ],
)
def test_a_map_points_into_the_box_or_beside_it(box: Box, pointed: bool) -> None:
    assert grounded(one(box), spot(8, 4)).pointed is pointed


def test_a_box_is_right_from_half_an_overlap_on() -> None:
    map_ = spot(8, 4)
    assert grounded(one((8.0, 4.0, 4.0, 8.0)), map_).right  # 16 of 32
    assert not grounded(one((8.0, 4.0, 4.0, 8.1)), map_).right
    assert not grounded(one((0.0, 0.0, 4.0, 4.0)), map_).right


def test_what_of_a_map_is_in_a_box() -> None:
    """By the square root of the area as it is given; the sides are cut to whole pixels after they are added."""
    map_ = np.arange(48, dtype=np.float64).reshape(6, 8) + 1
    assert activation(map_, (2.6, 1.7, 3.0, 2.0)) == pytest.approx(map_[1:3, 2:5].sum() / 6**0.5)
    assert activation(map_, (-2.0, -1.0, 5.0, 3.0)) == pytest.approx(map_[0:2, 0:3].sum() / 15**0.5)
    assert activation(map_, (6.0, 4.0, 5.0, 5.0)) == pytest.approx(map_[4:, 6:].sum() / 5)
    assert activation(map_, (1.0, 1.0, 0.5, 0.5)) == pytest.approx(map_[1:1, 1:1].sum() * 2)
    assert activation(map_, (1.0, 1.0, 0.0, 4.0)) == activation(map_, (1.0, 1.0, 4.0, 0.0)) == 0.0


@pytest.mark.parametrize(("box", "beyond"), [
    ((-2.0, -2.0, 34.0, 24.0), None), ((-2.5, 0.0, 9.0, 9.0), 2), ((0.0, -3.0, 9.0, 9.0), 3),
    ((20.0, 0.0, 14.0, 9.0), 4), ((0.0, 10.0, 9.0, 15.0), 5),
])  # fmt: skip
def test_a_box_of_another_picture_is_noticed(box: Box, beyond: int | None) -> None:
    if beyond is None:
        check_inside(box, (30, 20), "row 1: the box")
        return
    with pytest.raises(UserError, match=rf"row 1: the box .* reaches {beyond} pixels .* 30 × 20"):
        check_inside(box, (30, 20), "row 1: the box")


def test_a_chosen_proposal_is_what_counts() -> None:
    near, far = (8.0, 4.0, 4.0, 4.0), (0.0, 10.0, 4.0, 4.0)
    found = grounded(one(near, far, near), spot(8, 4))
    assert (found.chosen, found.right) == (near, True)
    found = grounded(one(near, far), spot(8, 4))  # the map's own box would be right
    assert (found.chosen, found.right) == (far, False)
    assert grounded(one(near), spot(8, 4)).chosen is None


def test_figures_of_maps_that_hit_and_miss(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four phrases matching points at all but the last, contrast at the first alone, the published map at none."""
    corners = [(0, 0), (10, 0), (0, 10), (10, 10)]
    boxes: list[Box] = [(float(x), float(y), 10.0, 10.0) for x, y in corners]

    def maps(shown: Sequence[int]) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[list(shown)].reshape(len(shown), GRID, GRID)

    of_score = {"itm": maps([0, 1, 2, 1]), "itc": maps([0, 0, 0, 0])}
    none = np.zeros((4, 0, GRID, GRID), np.float32)
    monkeypatch.setattr(grounding, "score_maps", lambda *given: Maps(of_score[given[-1]], none))
    monkeypatch.setattr(grounding, "pair_maps", lambda *_: maps([1, 2, 3, 0]))
    monkeypatch.setattr(grounding, "enlarged", lambda map_, size: np.kron(map_, np.ones((10, 10))))
    engine = toy.engine("contrast", "itm")
    found = dict(evaluate_grounding(engine, Phrases(boxes), "x"))
    shares = {name: value for name, value in found.items() if not name.endswith(("_low", "_high"))}
    assert shares == {
        "x/itm_pointing": 0.75,
        "x/itm_map_box": 0.75,
        "x/itc_pointing": 0.25,
        "x/itc_map_box": 0.25,
        "x/published_pointing": 0.0,
        "x/published_map_box": 0.0,
        "x/count": 4.0,
        "x/skipped": 0.0,
    }
    # Where the proposals of the second phrase leave its box out.
    proposals = [tuple(boxes), (boxes[0], boxes[2]), tuple(boxes), tuple(boxes)]
    found = dict(evaluate_grounding(engine, Phrases(boxes, proposals), "x"))
    assert (found["x/itm_proposals"], found["x/itc_proposals"]) == (0.5, 0.25)
    assert (found["x/itm_pointing"], found["x/itm_map_box"]) == (0.75, 0.75)
    # A phrase without proposals: the figure would be of other phrases than the rest.
    found = dict(evaluate_grounding(engine, Phrases(boxes, [*proposals[:3], ()]), "x"))
    assert "x/itm_proposals" not in found


def test_a_phrase_is_mapped_as_a_whole_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def maps(
        model: object, pixels: object, ids: torch.Tensor, mask: object, words: torch.Tensor, score: str
    ) -> Maps:
        asked.append((score, tuple(words.shape)))
        return Maps(
            np.zeros((len(ids), GRID, GRID), np.float32), np.zeros((len(ids), 0, GRID, GRID), np.float32)
        )

    monkeypatch.setattr(grounding, "score_maps", maps)
    engine = toy.engine("contrast", "itm")
    ids, _ = engine.text_tokens(["a fox", "a car"])
    size = engine.config.image_size
    found = grounding.phrase_maps(engine, torch.zeros(2, 3, size, size), ["a fox", "a car"])
    assert asked == [(score, (2, 0, ids.shape[1])) for score in grounding.SCORES]
    assert {score: ones.shape for score, ones in found.items()} == dict.fromkeys(
        grounding.SCORES, (2, GRID, GRID)
    )
