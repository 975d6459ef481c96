"""Times the queries of the five systems in turn, once `make evidence` has trained them.

What disturbs the machine then disturbs all of them alike. The figures become a row of evidence/rows.jsonl.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch
from cells import code_hash, commit, read_rows
from evidence import ROWS, RUNS
from evidence_cells import ON_REGIONS, SEEDS, TIMED
from evidence_claims import SYSTEMS, Row
from retrieval_cost import measured

from albef import Engine
from albef.cli.versions import cpu
from albef.config import UserError
from albef.distributed import cores
from albef.writing import append_whole


def row(runs: Path, queries: int, top_k: int, count: int) -> Row:
    """What a query costs, by system; the models are those of the first seed."""
    begin = time.monotonic()
    engines = {}
    for name, system in SYSTEMS.items():
        regions = runs / "regions" / ON_REGIONS[name][1] if name in ON_REGIONS else ""
        model = runs / f"{system.way}-{SEEDS[0]}"
        if not model.is_dir():
            raise UserError(
                f"{model} is not there: remove the row of {model.name} from {ROWS}, and make evidence trains it again."
            )
        engines[name] = Engine.load(model, quiet=True, regions=str(regions))
    figures = measured(engines, queries, top_k, count, seed=1, nouns=24)
    return {
        "cell": TIMED,
        "code": code_hash(),
        "cpu": cpu(),
        "cores": cores(),
        "torch": torch.__version__,
        "seconds": round(time.monotonic() - begin, 1),
        "figures": figures,
        "commit": commit(),
    }


def main() -> None:
    """Measures, and appends the row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=RUNS, help="the runs of make evidence")
    parser.add_argument("--rows", type=Path, default=ROWS, help="file to append the row to")
    parser.add_argument("--queries", type=int, default=20, help="that are timed (default: 20)")
    parser.add_argument("--top-k", type=int, default=64, help="images that are matched (default: 64)")
    parser.add_argument("--count", type=int, default=500, help="images of the gallery (default: 500)")
    given = parser.parse_args()
    if any(one["cell"] == TIMED and one["code"] == code_hash() for one in read_rows(given.rows)):
        print(f"The queries are timed already: {given.rows}")
        return
    torch.set_num_threads(1)
    try:
        found = row(given.runs, given.queries, given.top_k, given.count)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    append_whole(given.rows, json.dumps(found, ensure_ascii=False) + "\n")
    print(f"Written: {given.rows}")


if __name__ == "__main__":
    main()
