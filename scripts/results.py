"""All results of README and docs, from one command: `make results` runs its cells and writes docs/results.md.

Finished cells are kept in results/rows.jsonl and not run again, so it can be stopped and started at will.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cells import ROOT, Cell, read_rows, run_cells
from results_page import fill_readme, latest, page

from albef.config import UserError
from albef.writing import write_whole

ROWS = ROOT / "results" / "rows.jsonl"
RUNS = ROOT / "runs" / "results"
PAGE, README = ROOT / "docs" / "results.md", ROOT / "README.md"

QUICKSTART = "recipes/quickstart.yaml"
PRETRAINED = "recipes/pictograms/from_pretrained.yaml"
WEIGHTS = ("runs/weights/vit-s14", "runs/weights/minilm-l6")
FROM_QUICKSTART = "--train.init={runs}/quickstart-42"
EVALUATE = ("albef", "evaluate", "{run}", "--split=test")
TWO_THINGS = ("scripts/two_things.py", "{run}", "--count=600")
GROUNDING = (*EVALUATE, "--task=grounding", "--data=pictograms:grounding", "--count=2000")

CELLS = (
    Cell(
        "quickstart-42",
        QUICKSTART,
        13,
        measures={
            "two-things": TWO_THINGS,
            "retrieval": (*EVALUATE, "--data=pictograms:retrieval", "--task=retrieval", "--count=1000"),
            **{f"grounding-{seed}": (*GROUNDING, f"--seed={seed}") for seed in (1, 2, 3)},
        },
    ),
    Cell("quickstart-43", QUICKSTART, 7, ("--train.seed=43",)),
    Cell("quickstart-44", QUICKSTART, 7, ("--train.seed=44",)),
    Cell("retrieval", "recipes/pictograms/retrieval.yaml", 5, (FROM_QUICKSTART,)),
    Cell("vqa", "recipes/pictograms/vqa.yaml", 6, (FROM_QUICKSTART,)),
    Cell("entailment", "recipes/pictograms/entailment.yaml", 4, (FROM_QUICKSTART,)),
    Cell("nlvr", "recipes/pictograms/nlvr.yaml", 6, (FROM_QUICKSTART,)),
    Cell("from-pretrained", PRETRAINED, 10, needs=WEIGHTS),
    Cell(
        "from-random",
        PRETRAINED,
        10,
        ("--train.init_image=", "--train.init_text=", "--train.init_text_layers=[]"),
        needs=WEIGHTS,
    ),
    Cell(
        "pictograms",
        "recipes/pictograms.yaml",
        55,
        measures={"gallery-4000": (*EVALUATE, "--count=4000"), "two-things": (*TWO_THINGS, "--num-nouns=32")},
    ),
)

NAMES = [cell.name for cell in CELLS]


def main() -> None:
    """Runs the cells that are left, then writes the page and README's table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", metavar="CELL", help="run this cell alone; repeatable")
    parser.add_argument("--quick", type=Path, metavar="DIR", help="next to nothing of every cell, into DIR")
    parser.add_argument("--page", action="store_true", help="write the page from the rows that are there")
    given = parser.parse_args()
    cells = [cell for cell in CELLS if not given.only or cell.name in given.only]
    try:
        if given.quick:
            run_cells(cells, given.quick / "rows.jsonl", given.quick / "runs", quick=True)
            write_whole(
                given.quick / "results.md", page(latest(read_rows(given.quick / "rows.jsonl")), NAMES)
            )
            return
        if not given.page:
            run_cells(cells, ROWS, RUNS)
        rows = latest(read_rows(ROWS))
        write_whole(PAGE, page(rows, NAMES))
        write_whole(README, fill_readme(README.read_text("utf-8"), rows))
        print(f"Written: {PAGE.relative_to(ROOT)} and the table of {README.relative_to(ROOT)}")
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
