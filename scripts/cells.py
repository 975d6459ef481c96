"""Cells: a training and all that is measured on it, run once and kept as one row of JSON.

A row names what it is a measurement of: the cell's settings, the code that computes, the commit and the CPU. A cell
whose row is there is not run again. A cell that was stopped goes on where it was.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import albef
from albef.cli.versions import cpu
from albef.config import UserError
from albef.distributed import cores
from albef.writing import append_whole, write_json

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path(albef.__file__).parent
# What these do changes no figure of a training or an evaluation.
NOT_COMPUTING = ("cli/", "report/", "search/", "exchange/")
CODE = ("src", "recipes", "scripts")

# The same cells with next to nothing in them, to see that all of them run.
QUICK = (
    "--train.steps=2",
    "--train.batch_size=8",
    "--train.warmup_steps=1",
    "--train.processes=1",
    "--evaluate.count=8",
    "--evaluate.top_k=4",
)
QUICK_COUNT = "--count=8"

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Cell:
    """A training, and the measurements of its model.

    In `settings` and `measures`, {runs} stands for the folder of all runs and {run} for the run of this cell. A
    measurement is a command that writes its figures to the file after `--json`, which is added.
    """

    name: str
    recipe: str
    minutes: float  # about how long it takes on two cores
    settings: tuple[str, ...] = ()
    measures: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()  # files and folders that must be there

    def key(self, quick: bool = False) -> str:
        """A hash of everything that the cell's figures depend on, the CPU and the libraries aside."""
        recipe = (ROOT / self.recipe).read_text("utf-8")
        lines = [line.split("#")[0].rstrip() for line in recipe.splitlines()]
        what = [[line for line in lines if line], self.settings, sorted(self.measures.items()), quick]
        return hashlib.sha256((json.dumps(what) + code_hash()).encode()).hexdigest()[:16]


def code_hash() -> str:
    """A hash of the code that trains and evaluates; comments and docstrings don't count."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(NOT_COMPUTING):
            digest.update(f"{name}\n{without_docstrings(path.read_text('utf-8'))}\n".encode())
    return digest.hexdigest()[:12]


def without_docstrings(source: str) -> str:
    """The syntax tree of a module without its docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        documented = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


def commit() -> str:
    """The commit that is checked out; raises `UserError` where the code differs from it."""
    changed = git("status", "--porcelain", "--", *CODE)
    if changed:
        raise UserError(
            f"The code differs from its commit. Commit first, since every row names one:\n{changed}"
        )
    return git("rev-parse", "--short", "HEAD")


def git(*arguments: str) -> str:
    """What a git command prints."""
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def read_rows(file: Path) -> list[Row]:
    """The rows of a file, oldest first; none where there is no file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []


def run_cells(
    cells: Sequence[Cell], rows: Path, runs: Path, quick: bool = False, say: Callable[[str], None] = print
) -> None:
    """Runs each cell that has no row yet and adds its row; a cell that lacks what it needs is left out and named."""
    of = commit() if not quick else "quick"
    rows.parent.mkdir(parents=True, exist_ok=True)
    done = {row["key"] for row in read_rows(rows)}
    wanted = [cell for cell in cells if cell.key(quick) not in done]
    left = sum(cell.minutes for cell in wanted)
    say(
        f"{len(cells) - len(wanted)} of {len(cells)} cells are done; the others take about {left:.0f} minutes."
    )
    for number, cell in enumerate(wanted, 1):
        missing = [name for name in cell.needs if not (ROOT / name).exists()]
        if missing:
            say(f"[{number}/{len(wanted)}] {cell.name}: left out, there is no {', '.join(missing)}")
            continue
        say(
            f"[{number}/{len(wanted)}] {cell.name}: about {cell.minutes:.0f} minutes (log: {runs / cell.name}.log)"
        )
        row = run_cell(cell, runs, quick) | {"commit": of}
        append_whole(rows, json.dumps(row, ensure_ascii=False) + "\n")
        say(f"    done in {row['seconds'] / 60:.1f} minutes")


def run_cell(cell: Cell, runs: Path, quick: bool = False) -> Row:
    """Trains and measures; the row without its commit. What is finished already is not done again."""
    run, key = runs / cell.name, cell.key(quick)
    runs.mkdir(parents=True, exist_ok=True)
    stamp = runs / f"{cell.name}.json"  # whose run the folder holds, and how long it took so far
    begun: Row = json.loads(stamp.read_text("utf-8")) if stamp.is_file() else {}
    if begun.get("key") != key:
        shutil.rmtree(run, ignore_errors=True)
        begun = {"key": key, "seconds": 0.0}
        write_json(stamp, begun)
    for command, result in commands_of(cell, runs, quick):
        if not result.exists():
            started = time.monotonic()
            call(command, runs / f"{cell.name}.log", cell.name)
            begun["seconds"] += time.monotonic() - started
            write_json(stamp, begun)
    figures = {"training": run / "metrics.json"} | {name: measured(run, name) for name in cell.measures}
    return {
        "cell": cell.name,
        "key": key,
        "code": code_hash(),
        "cpu": cpu(),
        "cores": cores(),
        "torch": torch.__version__,
        "seconds": round(begun["seconds"], 1),
        "figures": {name: json.loads(file.read_text("utf-8")) for name, file in figures.items()},
    }


def commands_of(cell: Cell, runs: Path, quick: bool) -> Iterable[tuple[list[str], Path]]:
    """The cell's commands in their order, each with the file that is there once it is done."""
    run = runs / cell.name
    if (run / "checkpoints").is_dir():
        train = ["albef", "train", "--resume", str(run)]
    else:
        train = ["albef", "train", cell.recipe, "--out", str(run), *cell.settings, *(QUICK if quick else ())]
    yield filled(train, runs, run), run / "report.html"
    for name, command in cell.measures.items():
        small = [re.sub(r"^--count=\d+$", QUICK_COUNT, word) if quick else word for word in command]
        yield [*filled(small, runs, run), "--json", str(measured(run, name))], measured(run, name)


def filled(words: Sequence[str], runs: Path, run: Path) -> list[str]:
    """A command with its places filled in; `albef` and scripts run by this Python."""
    program = {"albef": [sys.executable, "-m", "albef"]}.get(words[0], [sys.executable, words[0]])
    return [*program, *(word.replace("{runs}", str(runs)).replace("{run}", str(run)) for word in words[1:])]


def measured(run: Path, name: str) -> Path:
    """Where the figures of a measurement are."""
    return run.parent / f"{run.name}.{name}.json"


def call(command: list[str], log: Path, name: str) -> None:
    """Runs a command and appends what it prints to a log; raises `UserError` where it fails."""
    with log.open("a", encoding="utf-8") as handle:
        print("$", *command, file=handle, flush=True)
        status = subprocess.run(
            command, cwd=ROOT, stdout=handle, stderr=subprocess.STDOUT, check=False
        ).returncode
    if status:
        last = log.read_text("utf-8").rstrip().splitlines()[-1]
        raise UserError(f"The cell {name} failed with exit status {status}; the log {log} ends with:\n{last}")
