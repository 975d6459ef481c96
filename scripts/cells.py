"""Cells: a training and all that is measured on it, run once and kept as one row of JSON.

A row names what it is a measurement of: the cell's settings, the code that computes, the commit and the CPU. A cell
whose row is there is not run again. A cell that was stopped goes on where it was.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import functools
import hashlib
import json
import re
import runpy
import shutil
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any
from unittest import mock

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
WITHOUT_REPORT = "scripts/without_report.py"

# The same cells with next to nothing in them, to see that all of them run.
QUICK = (
    "--train.steps=2",
    "--train.batch_size=8",
    "--train.warmup_steps=1",
    "--train.processes=1",
    "--train.threads=1",
    "--train.attention=fused",  # measuring the fastest one would take longer than the training
    "--train.linear=torch",
    "--data.count=24",
    "--evaluate.count=8",
    "--evaluate.top_k=4",
)
QUICK_NUMBERS = {
    "--count": 8,
    "--steps": 2,
    "--top-k": 4,
    "--queries": 2,
    "--scenes": 50,
}  # of measurements and preparations

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Training:
    """A training that starts from a cell's model."""

    recipe: str
    settings: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Cell:
    """A training, the trainings that start from its model, and the measurements of it.

    In `settings` and `measures`, {runs} stands for the folder of all runs and {run} for the run of this cell. A
    measurement is a command that writes its figures to the file after `--json`, which is added.
    """

    name: str
    recipe: str
    minutes: float  # about how long it takes on two cores
    settings: tuple[str, ...] = ()
    measures: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()  # files and folders that must be there
    then: Mapping[str, Training] = dataclasses.field(default_factory=dict)
    report: bool = True  # whether its trainings end with a report
    # Commands that prepare its data, by names that several cells may share: then one of them runs it.
    before: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def key(self, quick: bool = False) -> str:
        """A hash of everything that the cell's figures depend on, the CPU and the libraries aside."""
        then = [[name, content(one.recipe), one.settings] for name, one in sorted(self.then.items())]
        what = [content(self.recipe), self.settings, sorted(self.measures.items()), quick, then]
        what.append(sorted(self.before.items()))
        return hashlib.sha256((json.dumps(what) + code_hash()).encode()).hexdigest()[:16]


def content(recipe: str) -> list[str]:
    """The lines of a recipe without comments."""
    lines = (line.split("#")[0].rstrip() for line in (ROOT / recipe).read_text("utf-8").splitlines())
    return [line for line in lines if line]


@functools.cache
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
    # As Python 3.11 writes it: 3.12 has a field more, and 3.13 leaves out what is empty.
    text = ast.dump(tree, show_empty=True) if sys.version_info >= (3, 13) else ast.dump(tree)
    return text.replace(", type_params=[]", "")


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


class AtOnce(Executor):
    """Does what it is given when it is given it, in the same thread."""

    def submit(self, function: Callable[..., Any], /, *given: Any) -> Future[Any]:
        """The finished work."""
        done: Future[Any] = Future()
        done.set_result(function(*given))
        return done


def run_cells(
    cells: Sequence[Cell],
    rows: Path,
    runs: Path,
    quick: bool = False,
    say: Callable[[str], None] = print,
    side_by_side: int = 1,
) -> None:
    """Runs each cell that has no row yet and adds its row; a cell that lacks what it needs is left out and named."""
    of = commit() if not quick else "quick"
    rows.parent.mkdir(parents=True, exist_ok=True)
    done = {row.get("key") for row in read_rows(rows)}  # a row that is no training has none
    ready = [cell for cell in cells if not missing(cell)]
    for cell in cells:
        if cell not in ready:
            say(f"{cell.name}: left out, there is no {', '.join(missing(cell))}")
    wanted = [cell for cell in ready if cell.key(quick) not in done]
    left = sum(cell.minutes for cell in wanted)
    say(
        f"{len(ready) - len(wanted)} of {len(cells)} cells are done; {len(wanted)} take about "
        f"{left / side_by_side:.0f} minutes."
    )

    def work(cell: Cell, needed: Sequence[Future[float]], first_needed: Sequence[Future[float]]) -> None:
        for each in needed:
            each.result()
        name = f"[{wanted.index(cell) + 1}/{len(wanted)}] {cell.name}"
        say(f"{name}: about {cell.minutes:.0f} minutes (log: {runs / cell.name}.log)")
        row = run_cell(cell, runs, quick, sum(each.result() for each in first_needed)) | {"commit": of}
        append_whole(rows, json.dumps(row, ensure_ascii=False) + "\n")
        say(f"{name}: done in {row['seconds'] / 60:.1f} minutes")

    with AtOnce() if side_by_side == 1 else ThreadPoolExecutor(side_by_side) as pool:
        try:
            for finished in as_completed(handed_out(pool, wanted, runs, quick, work)):
                finished.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # those that run end; no other begins
            raise


Work = Callable[[Cell, Sequence[Future[float]], Sequence[Future[float]]], None]


def handed_out(
    pool: Executor, cells: Sequence[Cell], runs: Path, quick: bool, work: Work
) -> list[Future[Any]]:
    """The work on all cells, for the pool to do, with the preparation of their data before it.

    `work` gets what the cell's data need, and which of that no earlier cell needs.
    """
    prepared: dict[str, Future[float]] = {}
    running: list[Future[None]] = []
    for cell in cells:
        new = {
            name: pool.submit(prepare, name, command, cell.name, runs, quick)
            for name, command in cell.before.items()
            if name not in prepared
        }
        prepared |= new
        running.append(pool.submit(work, cell, [prepared[name] for name in cell.before], list(new.values())))
    return [*prepared.values(), *running]


def missing(cell: Cell) -> list[str]:
    """What a cell needs and is not there."""
    return [name for name in cell.needs if not (ROOT / name).exists()]


def run_cell(cell: Cell, runs: Path, quick: bool = False, prepared: float = 0.0) -> Row:
    """Trains and measures; the row without its commit. What is finished already is not done again.

    `prepared` is the number of seconds that preparing its data took.
    """
    run, key = runs / cell.name, cell.key(quick)
    runs.mkdir(parents=True, exist_ok=True)
    stamp = runs / f"{cell.name}.json"  # whose run the folder holds, and how long it took so far
    begun: Row = json.loads(stamp.read_text("utf-8")) if stamp.is_file() else {}
    if begun.get("key") != key:
        remove(run)
        begun = {"key": key, "seconds": 0.0}
        write_json(stamp, begun)
    begun["seconds"] += prepared
    for command, result in commands_of(cell, runs, quick):
        if not result.exists():
            started = time.monotonic()
            calling = call_here if quick else call
            calling(command, runs / f"{cell.name}.log", cell.name)
            begun["seconds"] += time.monotonic() - started
            write_json(stamp, begun)
    figures = {"training": run / "metrics.json"} | {name: measured(run, name) for name in cell.measures}
    figures |= {name: beside(run, name) / "metrics.json" for name in cell.then}
    return {
        "cell": cell.name,
        "recipe": cell.recipe,
        "settings": cell.settings,
        "then": {name: dataclasses.asdict(one) for name, one in cell.then.items()},
        "key": key,
        "code": code_hash(),
        "cpu": cpu(),
        "cores": cores(),
        "torch": torch.__version__,
        "seconds": round(begun["seconds"], 1),
        "figures": {name: json.loads(file.read_text("utf-8")) for name, file in figures.items()},
    }


def prepare(name: str, command: Sequence[str], cell: str, runs: Path, quick: bool) -> float:
    """Prepares the data of this name, unless this version of the code has done so; the seconds it took."""
    started, done = time.monotonic(), runs / f"{name}.{hashed(command)}.done"
    if not done.exists():
        runs.mkdir(parents=True, exist_ok=True)
        words = [*reduced(command), *QUICK] if quick else command
        (call_here if quick else call)(filled(words, runs, runs), runs / f"{cell}.log", cell)
        done.touch()
    return time.monotonic() - started


def hashed(command: Sequence[str]) -> str:
    """A hash of a command and of the code that computes."""
    return hashlib.sha256((json.dumps(list(command)) + code_hash()).encode()).hexdigest()[:12]


def reduced(words: Sequence[str]) -> list[str]:
    """A command that does next to nothing."""
    pattern = rf"^({'|'.join(QUICK_NUMBERS)})=\d+$"
    return [re.sub(pattern, lambda found: f"{found[1]}={QUICK_NUMBERS[found[1]]}", word) for word in words]


def commands_of(cell: Cell, runs: Path, quick: bool) -> Iterable[tuple[list[str], Path]]:
    """The cell's commands in their order, each with the file that is there once it is done."""
    run = runs / cell.name
    last = "report.html" if cell.report else "metrics.json"
    yield filled(training(cell, Training(cell.recipe, cell.settings), run, quick), runs, run), run / last
    for name, command in cell.measures.items():
        small = reduced(command) if quick else command
        yield [*filled(small, runs, run), "--json", str(measured(run, name))], measured(run, name)
    for name, one in cell.then.items():
        of = beside(run, name)
        from_it = dataclasses.replace(one, settings=("--train.init={run}", *one.settings))
        yield filled(training(cell, from_it, of, quick), runs, run), of / last


def training(cell: Cell, one: Training, run: Path, quick: bool) -> list[str]:
    """The command that begins a training of a cell, or goes on with it."""
    program = ["albef", "train"] if cell.report else [WITHOUT_REPORT]
    if (run / "checkpoints").is_dir():
        return [*program, "--resume", str(run)]
    return [*program, one.recipe, "--out", str(run), *one.settings, *(QUICK if quick else ())]


def filled(words: Sequence[str], runs: Path, run: Path) -> list[str]:
    """A command with its places filled in; `albef` and scripts run by this Python."""
    program = {"albef": [sys.executable, "-m", "albef"]}.get(words[0], [sys.executable, words[0]])
    return [*program, *(word.replace("{runs}", str(runs)).replace("{run}", str(run)) for word in words[1:])]


def measured(run: Path, name: str) -> Path:
    """Where the figures of a measurement are."""
    return run.parent / f"{run.name}.{name}.json"


def beside(run: Path, name: str) -> Path:
    """The run of a training that starts from a run's model."""
    return run.parent / f"{run.name}.{name}"


def remove(run: Path) -> None:
    """Removes a cell's run and all that was made of it, but for its log."""
    for path in (run, *run.parent.glob(f"{run.name}.*")):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix == ".json":
            path.unlink()


def call(command: list[str], log: Path, name: str) -> None:
    """Runs a command and appends what it prints to a log; raises `UserError` where it fails."""
    with log.open("a", encoding="utf-8") as handle:
        print("$", *command, file=handle, flush=True)
        status = subprocess.run(
            command, cwd=ROOT, stdout=handle, stderr=subprocess.STDOUT, check=False
        ).returncode
    check(status, log, name)


def call_here(command: list[str], log: Path, name: str) -> None:
    """The same within this process, which need not start Python and torch again."""
    arguments = command[2:] if command[1] == "-m" else command[1:]
    begin = runpy.run_module if command[1] == "-m" else runpy.run_path
    with (
        log.open("a", encoding="utf-8") as handle,
        contextlib.redirect_stdout(handle),
        contextlib.redirect_stderr(handle),
        contextlib.chdir(ROOT),
        mock.patch.object(sys, "argv", arguments),
    ):
        print("$", *command)
        status: object = 0
        try:
            begin(arguments[0], run_name="__main__")
        except SystemExit as end:
            status = end.code
        except Exception:
            traceback.print_exc()
            status = 1
    check(status, log, name)


def check(status: object, log: Path, name: str) -> None:
    """Raises `UserError` with the last line of the log if a command failed."""
    if status:
        last = log.read_text("utf-8").rstrip().splitlines()[-1]
        raise UserError(f"The cell {name} failed with exit status {status}; the log {log} ends with:\n{last}")
