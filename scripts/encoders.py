"""From trained encoders, as the paper begins: all of ALBEF, its contrast alone, and its fusion alone (docs/evidence.md).

    make weights; python scripts/encoders.py --steps 1300     on an H200, about 3 minutes

The three trainings run side by side and see the same pairs. Their figures go into evidence/encoders.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from cells import ROOT, WITHOUT_REPORT, call, code_hash
from evidence_cells import ABLATION
from results_page import SCORES

from albef.cli.versions import cpu
from albef.config import UserError
from albef.distributed import cores
from albef.gpu import gpus, is_gpu
from albef.writing import write_json

ENCODERS = ROOT / "evidence" / "encoders.json"
RECIPE = "recipes/pictograms/from_pretrained.yaml"
SEED = 9
WAYS: dict[str, tuple[str, ...]] = {
    "full": (),
    "itc": ("--task.losses=[itc]",),
    "itm-mlm": ABLATION["itm-mlm"],
}
GALLERY = 500  # images and as many captions, to find each other among
FOILS = "noun", "count", "size"


def settings(steps: int, batch_size: int, device: str) -> tuple[str, ...]:
    """What the three trainings share: the recipe's schedules, stretched to so many steps."""
    return (
        f"--train.steps={steps}",
        f"--train.batch_size={batch_size}",
        f"--train.warmup_steps={min(100, steps // 10)}",
        f"--task.alpha_ramp_steps={steps // 2}",
        f"--train.checkpoint_every_steps={steps}",
        f"--train.seed={SEED}",
        f"--train.device={device}",
        "--train.processes=1",
        f"--data.workers={max(1, cores() // len(WAYS))}",
        "--evaluate.splits=[test]",
        f"--evaluate.count={GALLERY}",
    )


def trained(runs: Path, given: Sequence[str]) -> dict[str, dict[str, float]]:
    """The figures of each way, trained side by side; runs go into `runs`, which must be empty."""

    def one(way: str) -> dict[str, float]:
        run = runs / way
        call(
            [sys.executable, WITHOUT_REPORT, RECIPE, "--out", str(run), *given, *WAYS[way]],
            runs / f"{way}.log",
            way,
        )
        return figures(json.loads((run / "metrics.json").read_text("utf-8")))

    with ThreadPoolExecutor(len(WAYS)) as pool:
        return dict(zip(WAYS, pool.map(one, WAYS), strict=True))


def figures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Mean recall and foils by each score that the model has, and the time it took."""
    names = "r_mean", "t2i_r1", *(f"foil_{kind}" for kind in FOILS)
    wanted = [f"test/{score}/{name}" for score in SCORES for name in names]
    return {name: metrics[name] for name in (*wanted, "train/seconds") if name in metrics}


def main() -> None:
    """Trains, and writes the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=3000, help="of each training (default: 3000)")
    parser.add_argument("--batch-size", type=int, default=128, help="pairs in a step (default: 128)")
    parser.add_argument("--device", default="auto", help="as in train.device (default: auto)")
    parser.add_argument(
        "--runs", type=Path, default=ROOT / "runs" / "encoders", help="a new folder for the trainings"
    )
    parser.add_argument("--out", type=Path, default=ENCODERS, help="JSON file of the figures")
    given, more = parser.parse_known_args()
    try:
        if given.runs.exists():
            raise UserError(f"{given.runs} is there already: remove it, or name another folder with --runs.")
        given.runs.mkdir(parents=True)
        found = trained(given.runs, (*settings(given.steps, given.batch_size, given.device), *more))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    facts = {
        "steps": given.steps,
        "batch_size": given.batch_size,
        "settings": more,
        "device": gpus()[0].name if is_gpu(given.device) else cpu(),
        "torch": torch.__version__,
        "code": code_hash(),
    }
    write_json(given.out, facts | {"ways": found})
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
