"""How long a step of each system takes on this machine, for comparing the systems at equal seconds.

All systems are trained in turn, several times, so that what disturbs the machine disturbs them alike. The medians go
into evidence/paces.json. Finding regions is not counted: it is done before.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

from cells import ROOT, WITHOUT_REPORT, call, code_hash
from evidence_cells import PACES, paced

from albef.cli.versions import cpu
from albef.config import UserError
from albef.distributed import cores
from albef.writing import write_json

SEED, STEPS, ROUNDS = 9, 60, 3


def measured(runs: Path, rounds: int, steps: int) -> dict[str, float]:
    """The median seconds of a step, by system. Trainings go into `runs`, which must be empty."""
    spent: dict[str, list[float]] = {}
    few = (f"--train.steps={steps}", f"--train.seed={SEED}", "--train.warmup_steps=1", "--evaluate.count=8")
    for number in range(rounds):
        for system, (recipe, settings, regions) in paced(runs / "regions").items():
            run, log = runs / f"{system}-{number}", runs / f"{system}.log"
            given = (*settings, *few, "--evaluate.splits=[test]")
            if regions and not number:
                call(
                    [sys.executable, "scripts/regions.py", recipe, str(runs / "regions"), *given], log, system
                )
            call([sys.executable, WITHOUT_REPORT, recipe, "--out", str(run), *given], log, system)
            metrics = json.loads((run / "metrics.json").read_text("utf-8"))
            spent.setdefault(system, []).append(metrics["train/seconds"] / metrics["train/steps"])
            print(f"round {number + 1} of {rounds}: {system}, {spent[system][-1]:.3f} s a step", flush=True)
    return {system: statistics.median(each) for system, each in spent.items()}


def noted(seconds: Mapping[str, float]) -> dict[str, object]:
    """The medians, and what they are measurements of."""
    return {"seconds_a_step": seconds, "code": code_hash(), "cpu": cpu(), "cores": cores()}


def main() -> None:
    """Measures, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--runs", type=Path, default=ROOT / "runs" / "paces", help="a new folder for the trainings"
    )
    given = parser.parse_args()
    try:
        if given.runs.exists():
            raise UserError(f"{given.runs} is there already: remove it, or name another folder with --runs.")
        given.runs.mkdir(parents=True)
        PACES.parent.mkdir(exist_ok=True)
        write_json(PACES, noted(measured(given.runs, ROUNDS, STEPS)))
        print(f"Written: {PACES}")
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
