"""Every claim of the paper, tested by one command: `make evidence` runs its cells and writes docs/evidence.md.

A cell runs on one core, so that there are as many side by side as cores: each step takes less of a core alone.

Finished cells are kept in evidence/rows.jsonl and not run again, so it can be stopped and started at will.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from cells import ROOT, Row, read_rows, run_cells
from encoders import ENCODERS
from evidence_cells import CELLS, OF_ONE_SEED, TIMED
from evidence_page import fill_readme, page
from evidence_plots import write_plots
from results_page import latest

from albef.config import UserError
from albef.distributed import cores
from albef.writing import write_whole

ROWS = ROOT / "evidence" / "rows.jsonl"
RUNS = ROOT / "runs" / "evidence"
PAGE, README = ROOT / "docs" / "evidence.md", ROOT / "README.md"
NAMES = [cell.name for cell in CELLS]


def of_one_code(rows: list[Row]) -> list[Row]:
    """The rows, without queries that were timed with other code than the last row's: they will be timed again."""
    return [row for row in rows if row["cell"] != TIMED or row["code"] == rows[-1]["code"]]


def main() -> None:
    """Runs the cells that are left, at the lowest priority, then writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="CELL", help="run this cell alone; repeatable")
    parser.add_argument("--quick", type=Path, metavar="DIR", help="two steps of every cell, into DIR")
    parser.add_argument("--page", action="store_true", help="write the page from the rows that are there")
    given = parser.parse_args()
    rows, page_file = ROWS, PAGE
    try:
        if given.quick:
            rows, page_file = given.quick / "rows.jsonl", given.quick / "evidence.md"
            chosen = [cell for cell in OF_ONE_SEED if not given.only or cell.name in given.only]
            run_cells(chosen, rows, given.quick / "runs", quick=True)
        elif not given.page:
            os.nice(19)
            os.environ["OMP_NUM_THREADS"] = "1"  # of what a cell starts
            chosen = [cell for cell in CELLS if not given.only or cell.name in given.only]
            run_cells(chosen, rows, RUNS, side_by_side=cores())
        found = latest(of_one_code(read_rows(rows)))
        write_plots(list(found.values()), page_file.with_suffix(""))
        trained_already = {} if given.quick else json.loads(ENCODERS.read_text("utf-8"))
        write_whole(page_file, page(found, NAMES, trained_already))
        if not given.quick:
            write_whole(README, fill_readme(README.read_text("utf-8"), found, NAMES))
        print(f"Written: {page_file}")
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
