"""All benchmarks in one process: prints their tables and rewrites BENCHMARKS.md and the plots (`make bench`)."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch
from decoding import decoding_section
from gpu_page import section_of
from growth import growth_section
from limits import Limits, limits_section, measure_limits
from memory import activations_section, gallery_section
from parts import parts_section
from reranking import reranking_section
from rich.console import Console
from section import Section
from step import step_section
from timing import MIN_ROUNDS

from albef.cli.versions import cpu
from albef.distributed import cores
from albef.train.allocator import keep_freed_memory

ROOT = Path(__file__).parent.parent
RESULTS, PROFILE = ROOT / "BENCHMARKS.md", ROOT / "docs" / "performance.md"
ONE_THREAD = "OPENBLAS_NUM_THREADS"
INTRODUCTION = """# Benchmarks

Read this page when you want to know how fast training, evaluation and reading of images are on a CPU, and how much
memory they need. [docs/performance.md](docs/performance.md) says why, and how it is measured. "Published" is the
computation of the published code, written out in `benchmarks/published.py`; "ours" is this library. Words such as ITM
and queue are in the [glossary](docs/glossary.md).
"""
MARK = "<!-- What follows is rewritten by `make bench`. -->\n"


def benchmarks(limits: dict[int, Limits], quick: bool, batch: int) -> dict[str, Callable[[], list[Section]]]:
    """What there is to measure, by name; `quick` takes toy sizes and one round, to see that everything runs."""
    rounds, size = (1, "tiny") if quick else (MIN_ROUNDS, "base")
    return {
        "step": lambda: step_section(limits, size, batch, rounds),
        "parts": lambda: parts_section(size, batch_size=2, rounds=rounds),
        "reranking": lambda: reranking_section(limits[1], size, rounds),
        "decoding": lambda: decoding_section(images=4 if quick else 64, rounds=rounds),
        "activations": lambda: activations_section(size),
        "gallery": lambda: gallery_section(size, quick),
        "growth": lambda: growth_section(ROOT / "docs" / "growth.png", rounds, quick),
    }


def where_and_when(command: str) -> str:
    """Where, when and with what the figures were measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "NumPy": np.__version__,
        "OpenCV": cv2.__version__,
        "Pillow": PIL.__version__,
    }
    return (
        f"Measured by `{command}` on {datetime.date.today().isoformat()}; no figure here is written by hand.\n\n"
        f"- Machine: {cpu()}, {cores()} cores, {memory:.0f} GiB of memory, {platform.system()}, no GPU used\n"
        f"- Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}\n"
        "- Times: the cases of a table take turns within one process. One round warms up, and at least "
        f"{MIN_ROUNDS} are counted. The tables have the median; the spread is the fastest and the slowest round. On one "
        "thread it is the CPU time of the process, on all threads wall time.\n"
    )


def main() -> None:
    """Parses the command line, measures, prints, writes."""
    if ONE_THREAD not in os.environ:
        # NumPy's threads look out for work at full speed for a while, and the CPU time of the next case would count
        # it. How many there are is read when NumPy is imported.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | {ONE_THREAD: "1"})
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that everything runs")
    parser.add_argument("--only", action="append", metavar="NAME", help="one of them (repeatable)")
    parser.add_argument("--batch", type=int, default=8, help="pairs of a timed step (default 8)")
    parser.add_argument("--output", type=Path, help="default: BENCHMARKS.md, for a whole run alone")
    given = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    keep_freed_memory()  # as training does
    started = time.perf_counter()
    limits = {threads: measure_limits(threads) for threads in sorted({1, 1 if given.quick else cores()})}
    known = benchmarks(limits, given.quick, given.batch)
    if unknown := set(given.only or ()) - set(known):
        parser.error(f"no benchmark {sorted(unknown)[0]!r}; there are {', '.join(known)}.")
    names = given.only or list(known)
    measured, failed = {"limits": [limits_section(limits)]}, dict[str, str]()
    console.print(measured["limits"][0].table())
    whole = not (given.quick or given.only)
    output = given.output or (RESULTS if whole else None)
    command = f"make bench BATCH={given.batch}" if whole else f"python {' '.join(sys.argv)}"
    for number, name in enumerate(names, 1):
        minutes = (time.perf_counter() - started) / 60
        console.print(f"[dim]{number} of {len(names)}: {name} ({minutes:.1f} minutes so far)[/]")
        try:
            measured[name] = known[name]()
        except Exception as error:  # what else was measured is not lost with it
            traceback.print_exc()
            failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        for section in measured.get(name, []):
            console.print(section.table())
        if whole and name == "parts" and name in measured:
            write_profile(measured.pop(name))
        if output is not None:
            write_results(output, command, measured, failed)
    console.print(f"[dim]{(time.perf_counter() - started) / 60:.1f} minutes in all[/]")
    sys.exit(1 if failed else 0)


def write_profile(sections: list[Section]) -> None:
    """The step's parts into their page."""
    page, tables = PROFILE.read_text("utf-8"), "\n".join(section.markdown() for section in sections)
    replace(PROFILE, page[: page.index(MARK)] + MARK + f"\n{where_and_when('make bench')}\n{tables}")


def write_results(
    path: Path, command: str, measured: dict[str, list[Section]], failed: dict[str, str]
) -> None:
    """All tables that there are so far, and what could not be measured."""
    tables = [section.markdown() for sections in measured.values() for section in sections]
    missing = [f"Not measured: {name} ({reason}).\n" for name, reason in failed.items()]
    on_gpus = section_of(path.read_text("utf-8") if path.is_file() else "")
    replace(path, "\n".join([INTRODUCTION, where_and_when(command), *missing, *tables, on_gpus]))


def replace(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(text, "utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    main()
