"""Two steps of every cell of the evidence, which takes most of a minute."""

import dataclasses
from pathlib import Path

import pytest
from cells import read_rows, run_cells
from evidence_cells import OF_ONE_SEED
from evidence_claims import CLAIMS, judged
from verdicts import UNKNOWN


# A vocabulary that is learned from 24 captions has so few words that some texts have many tokens.
@pytest.mark.filterwarnings("ignore:.*texts are longer:albef.errors.Caution")
def test_two_steps_of_every_cell_have_all_figures_of_all_claims(tmp_path: Path) -> None:
    """What is done is not done again."""
    rows, runs = tmp_path / "rows.jsonl", tmp_path / "runs"
    every = [dataclasses.replace(cell, needs=()) for cell in OF_ONE_SEED]  # no pace is needed for two steps
    run_cells(every, rows, runs, quick=True, say=lambda line: None)
    found = read_rows(rows)
    assert [row["cell"] for row in found] == [cell.name for cell in OF_ONE_SEED]
    assert len({row["code"] for row in found}) == 1
    for claim in CLAIMS:
        for one in judged(found, claim):
            assert one.found is not None, one.comparison
            assert one.verdict == UNKNOWN  # there is one seed
    assert not list(runs.rglob("report.html"))
    told: list[str] = []
    run_cells(every, rows, runs, quick=True, say=told.append)
    assert told == [f"{len(found)} of {len(found)} cells are done; 0 take about 0 minutes."]
