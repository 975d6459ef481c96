"""All benchmarks in one process: prints their tables and rewrites BENCHMARKS.md and the plots (`make bench`)."""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch
from decoding import decoding_section
from growth import growth_section
from limits import Limits, limits_section, measure_limits
from memory import activations_section, gallery_section
from parts import parts_section
from reranking import reranking_section
from rich.console import Console
from section import Section
from step import step_section
from timing import MIN_ROUNDS, cores

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "BENCHMARKS.md"


def benchmarks(limits: dict[int, Limits], quick: bool) -> dict[str, Callable[[], list[Section]]]:
    """What there is to measure, by name; `quick` takes toy sizes and one round, to see that everything runs."""
    rounds, size = (1, "tiny") if quick else (MIN_ROUNDS, "base")
    return {
        "step": lambda: step_section(limits, size, batch_size=2 if quick else 8, rounds=rounds),
        "parts": lambda: parts_section(size, batch_size=2 if quick else 8, rounds=rounds),
        "reranking": lambda: reranking_section(size, rounds),
        "decoding": lambda: decoding_section(pictures=4 if quick else 64, rounds=rounds),
        "activations": lambda: activations_section(size),
        "gallery": lambda: gallery_section(size, quick),
        "growth": lambda: growth_section(ROOT / "docs" / "growth.png", rounds, quick),
    }


def header(command: str) -> str:
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
        "# Benchmarks\n\n"
        f"Measured by `{command}` on {datetime.date.today().isoformat()}; nothing here is written by hand.\n\n"
        f"- Machine: {processor()}, {cores()} cores, {memory:.0f} GiB of memory, {platform.system()}, no GPU used\n"
        f"- Versions: {', '.join(f'{name} {version}' for name, version in versions.items())}\n"
        f"- Times: the cases of a table in turn within one process, one round to warm up and {MIN_ROUNDS} or more "
        "counted; medians, with the fastest and the slowest round as the spread. On one thread it is the process's CPU "
        "time, on all threads wall time.\n"
    )


def processor() -> str:
    """The name of the CPU."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def main() -> None:
    """Parses the command line, measures, prints, writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that everything runs")
    parser.add_argument("--only", action="append", metavar="NAME", help="one of them (repeatable)")
    parser.add_argument("--output", type=Path, help="default: BENCHMARKS.md, for a whole run alone")
    given = parser.parse_args()
    console = Console()
    started = time.perf_counter()
    limits = {threads: measure_limits(threads) for threads in sorted({1, 1 if given.quick else cores()})}
    known = benchmarks(limits, given.quick)
    if unknown := set(given.only or ()) - set(known):
        parser.error(f"no benchmark {sorted(unknown)[0]!r}; there are {', '.join(known)}.")
    names = given.only or list(known)
    sections = [limits_section(limits)]
    console.print(sections[0].table())
    for number, name in enumerate(names, 1):
        minutes = (time.perf_counter() - started) / 60
        console.print(f"[dim]{number} of {len(names)}: {name} ({minutes:.1f} minutes so far)[/]")
        for section in known[name]():
            sections.append(section)
            console.print(section.table())
    output = given.output or (None if given.quick or given.only else RESULTS)
    if output is not None:
        command = "make bench" if output == RESULTS else f"python {' '.join(sys.argv)}"
        temporary = output.with_name(f".{output.name}.writing")
        temporary.write_text("\n".join([header(command), *(one.markdown() for one in sections)]), "utf-8")
        os.replace(temporary, output)
        console.print(f"{output} is written.")


if __name__ == "__main__":
    main()
