"""The quickstart: trains a small model on generated images, evaluates it, writes a report, and searches images.

Steps that are already done are skipped. `--fresh` starts again.
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
    """Runs the steps that are not done yet, and shows the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--run",
        type=Path,
        default=Path("runs/quickstart"),
        help="folder of the run (default: runs/quickstart)",
    )
    parser.add_argument("--fresh", action="store_true", help="delete the run and start again (default: off)")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="only try that everything works, with a tiny training (default: off)",
    )
    given = parser.parse_args()
    run: Path = given.run
    if given.fresh:
        shutil.rmtree(run, ignore_errors=True)

    if not (run / "report.html").exists():
        reduced = REDUCED if given.smoke else []
        # In its own process, so that Ctrl-C stops the training like any other command.
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
    gallery, index = run / "gallery", run / "index"
    count = 60 if given.smoke else 500
    if not gallery.exists():
        albef(
            [
                "data",
                "export",
                "pictograms",
                "--split=test",
                f"--count={count}",
                "--seed=7",
                "--out",
                str(gallery),
            ]
        )
    if not index.exists():
        albef(["index", str(run / "model"), str(gallery / "images"), "--out", str(index)])
    sheets = []
    for number, query in enumerate(QUERIES, 1):
        sheet = run / f"search-{number}.png"
        albef(["search", str(index), query, "-k", "6", "--out", str(sheet)])
        sheets.append(sheet)
    print(f"""
Report         {run / "report.html"}
Two searches   {", ".join(map(str, sheets))}
Try next       . .venv/bin/activate
               albef search {index} "two foxes"
               albef evaluate {run} --split unseen_pair --seed 2
               albef train recipes/quickstart.yaml --task.alpha=0 --out runs/without-distillation
Start again    make quickstart FRESH=1""")


if __name__ == "__main__":
    main()
