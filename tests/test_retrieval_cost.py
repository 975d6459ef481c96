"""What a query costs: counted by hand, and with the passes that each kind of model needs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import query_costs
import retrieval_cost
import torch
from cells import read_rows
from retrieval_cost import GALLERIES, in_turn, measured, operations, three_digits

import toy
from albef.config import UserError
from albef.data.pictograms.gallery import gallery
from albef.model import kernels


def test_operations_are_counted_with_any_library() -> None:
    layer = kernels.Linear(16, 32)
    layer.requires_grad_(False)
    states = torch.zeros(5, 16)
    expected = 2 * 5 * 16 * 32 / 1e9
    assert operations(lambda: layer(states)) == pytest.approx(expected)
    if kernels.onednn_is_there():
        layer.laid_out = kernels.laid_out(layer.weight, 5)
        assert operations(lambda: layer(states)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("heads", "passes"),
    [
        (("contrast", "itm"), [1 + 3] * 3),
        (("contrast",), [1] * 3),
        (("itm",), [1 + images for images in GALLERIES]),
    ],
)
def test_passes_of_a_query(heads: tuple[str, ...], passes: list[int]) -> None:
    found = measured({"a": toy.engine(*heads)}, queries=1, top_k=3, count=5, seed=1, nouns=8)["a"]
    assert [found[f"{images}/passes"] for images in GALLERIES] == passes
    for images, count in zip(GALLERIES, passes, strict=True):
        expected = found["text_gflop"] + (count - 1) * found.get("match_gflop", 0.0)
        expected += images * found.get("compare_gflop", 0.0)
        assert found[f"{images}/gflop"] == pytest.approx(expected)
    assert found["text_gflop"] > 0


def test_the_images_are_those_that_an_evaluation_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are regions of those. In a smaller gallery some captions fit two scenes, and other scenes are taken."""
    seen: list[np.ndarray] = []
    engine = toy.engine("contrast", "itm")
    encode = engine.image_encodings
    monkeypatch.setattr(engine, "image_encodings", lambda images: seen.extend(images) or encode(images))
    measured({"a": engine}, queries=1, top_k=64, count=500, seed=1, nouns=24)
    size = engine.config.image_size
    np.testing.assert_array_equal(seen, gallery("test", 1, 500, 24, size).images[:64])
    assert (gallery("test", 1, 64, 24, size).images != np.stack(seen)).any()


def test_works_take_turns_and_the_first_round_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, done = [0.0], list[tuple[str, int]]()

    def work(name: str, seconds: float) -> Callable[[int], object]:
        def one(number: int) -> None:
            done.append((name, number))
            clock[0] += 9.0 if number == 0 else seconds

        return one

    monkeypatch.setattr(retrieval_cost.time, "process_time", lambda: clock[0])
    found = in_turn({"a": work("a", 1.0), "b": work("b", 2.0)}, queries=3)
    assert found == {"a": 1.0, "b": 2.0}
    assert done == [(name, number) for number in range(4) for name in "ab"]


def test_all_systems_are_timed_with_their_models_and_regions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = {}

    def load(source: Path, quiet: bool, regions: str) -> object:
        loaded[source.name] = Path(regions).name
        return toy.engine("contrast", "itm")

    monkeypatch.setattr(query_costs.Engine, "load", load)
    monkeypatch.setattr(query_costs, "commit", lambda: "abc")
    names = ["full-1", "clip-1", "lxmert-1", "uniter-1", "oscar-1"]
    for name in names:
        with pytest.raises(UserError, match=f"{name} is not there: remove the row of {name}"):
            query_costs.row(tmp_path, queries=1, top_k=2, count=4)
        (tmp_path / name).mkdir()
    found = query_costs.row(tmp_path, queries=1, top_k=2, count=4)
    assert loaded == {"full-1": "", "clip-1": "", "lxmert-1": "poor", "uniter-1": "poor", "oscar-1": "poor"}
    assert found["cell"] == "costs-1"
    assert list(found["figures"]) == ["albef", "clip", "lxmert", "uniter", "oscar"]
    assert all(one["1000/passes"] == 3 and one["1000/seconds"] > 0 for one in found["figures"].values())


@pytest.mark.parametrize(
    ("value", "shown"),
    [(34_812.4, "34,800"), (201.3, "201"), (99.96, "100"), (8.214, "8.21"), (0.010437, "0.0104")],
)
def test_figures_have_three_digits_and_no_exponent(value: float, shown: str) -> None:
    assert three_digits(value) == shown


def test_queries_that_this_code_has_timed_are_not_timed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = tmp_path / "rows.jsonl"
    timed = {"cell": query_costs.TIMED, "code": query_costs.code_hash()}
    monkeypatch.setattr(query_costs, "row", lambda *given: timed)
    monkeypatch.setattr(sys, "argv", ["query_costs.py", f"--rows={rows}"])
    for lines in (1, 1):
        query_costs.main()
        assert len(read_rows(rows)) == lines
    assert "timed already" in capsys.readouterr().out
    rows.write_text(json.dumps(timed | {"code": "old"}) + "\n")
    query_costs.main()
    assert len(read_rows(rows)) == 2
