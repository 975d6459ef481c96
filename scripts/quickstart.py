"""The main job from end to end on the embedded data: train, evaluate, report, index, search.

Run again, it shows what is there; `--fresh` starts over. `--smoke` is a reduced form that only shows that it works.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from albef.cli import main as albef

QUERIES = ("three butterflies", "a small crab on the left")
REDUCED = [
    "--train.steps=24",
    "--train.batch_size=32",
    "--train.warmup_steps=4",
    "--train.log_every_steps=4",
    "--train.checkpoint_every_steps=12",
    "--evaluate.count=60",
    "--evaluate.top_k=16",
]


def main() -> None:
    """Runs or shows the quickstart."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, default=Path("runs/quickstart"))
    parser.add_argument("--fresh", action="store_true", help="start over")
    parser.add_argument("--smoke", action="store_true", help="a reduced form that only shows that it works")
    given = parser.parse_args()
    run: Path = given.run
    if given.fresh:
        shutil.rmtree(run, ignore_errors=True)

    if not (run / "report.html").exists():
        reduced = REDUCED if given.smoke else []
        # In a process of its own, so that an interrupted training leaves this script like any other command.
        command = [
            sys.executable,
            "-m",
            "albef",
            "train",
            "recipes/quickstart.yaml",
            "--out",
            str(run),
            *reduced,
        ]
        status = subprocess.run(command, check=False).returncode
        if status:
            sys.exit(status)
    pictures, index = run / "gallery", run / "index"
    count = 60 if given.smoke else 500
    if not pictures.exists():
        albef(
            [
                "data",
                "export",
                "pictograms",
                "--split=test",
                f"--count={count}",
                "--seed=7",
                "--out",
                str(pictures),
            ]
        )
    if not index.exists():
        albef(["index", str(run / "model"), str(pictures / "images"), "--out", str(index)])
    sheets = []
    for number, query in enumerate(QUERIES, 1):
        sheet = run / f"search-{number}.png"
        albef(["search", str(index), query, "-k", "6", "--out", str(sheet)])
        sheets.append(sheet)
    print(f"""
Look at        {run / "report.html"}
               {", ".join(map(str, sheets))}
Try next       .venv/bin/albef search {index} "two foxes"
               .venv/bin/albef evaluate {run} --split unseen_pair --seed 2
               .venv/bin/albef train recipes/quickstart.yaml --task.alpha=0 --out runs/without-distillation
Start over     make quickstart FRESH=1""")


if __name__ == "__main__":
    main()
