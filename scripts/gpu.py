"""Proves on a GPU that training is right there, and measures it: `make gpu [DEVICE=cpu] [QUICK=1] [SECONDS=480]`.

It runs from a checkout, needs no network and installs nothing. Every part is a process of its own, so that one that
fails, or takes too long, leaves the others their time. The table comes last; the same figures are in a JSON file, which
is written again after every part. A whole run on a GPU also writes its section of BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import multiprocessing
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent.parent
PLACES = [str(ROOT / place) for place in ("src", "benchmarks", "tests/parity")]
sys.path[:0] = PLACES

import torch  # noqa: E402
from gpu_page import section, with_section  # noqa: E402
from gpu_right import golden_part, resume_part, waits_part  # noqa: E402
from gpu_setting import Figures, Setting  # noqa: E402
from gpu_steps import compiled_part, phases_part, published_part, steps_part  # noqa: E402
from gpu_systems import systems_part  # noqa: E402
from gpu_use import inference_part, loader_part, training_part  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from albef.cli.versions import cpu  # noqa: E402
from albef.gpu import gpus, is_gpu  # noqa: E402

RESULTS = ROOT / "BENCHMARKS.md"
OVERTIME = 2.0  # times its planned seconds that a part may take, if they are there
FORK = multiprocessing.get_context("fork")  # torch is imported once; this process itself uses no GPU


class Part(NamedTuple):
    """Something to prove or to measure."""

    name: str
    seconds: int  # planned
    measure: Callable[[Setting], Iterator[Figures]]


class Outcome(NamedTuple):
    """What came of a part."""

    name: str
    state: str  # done, failed, skipped
    reason: str
    seconds: float
    figures: Figures


def machine_part(setting: Setting) -> Iterator[Figures]:
    """Versions and the card."""
    yield {"Python": platform.python_version(), "torch": torch.__version__}
    yield {"CPU": f"{os.cpu_count()} cores of {cpu()}"}
    if setting.on_gpu:
        yield {"CUDA": str(torch.version.cuda)}
        for number, gpu in enumerate(gpus()):
            yield {f"GPU {number}": f"{gpu.name}, {gpu.memory_bytes / 2**30:.1f} GiB{', bf16' * gpu.bf16}"}


# In this order: what proves comes first, what takes longest last. Training takes the time that is left. Compiling took
# more than three minutes with 16 slow cores: it needs SECONDS=720.
PARTS = (
    Part("machine", 5, machine_part),
    Part("golden files", 40, golden_part),
    Part("waits", 25, waits_part),
    Part("kill and resume", 40, resume_part),
    Part("step", 100, steps_part),
    Part("published", 25, published_part),
    Part("phases", 10, phases_part),
    Part("inference", 30, inference_part),
    Part("loader", 25, loader_part),
    Part("systems", 60, systems_part),
    Part("compiled", 240, compiled_part),
    Part("training", 120, training_part),
)


def main() -> int:
    """Runs the parts that fit; the exit status is 1 if one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--device", default="cuda", help="cuda, or cpu to try the script itself (default: cuda)"
    )
    parser.add_argument("--quick", action="store_true", help="toy sizes, to see that everything runs")
    parser.add_argument("--seconds", type=float, default=480, help="time for everything (default: 480)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "runs" / "gpu.json", help="JSON file of the figures"
    )
    parser.add_argument("--only", action="append", metavar="PART", help="one of the parts (repeatable)")
    given = parser.parse_args()
    names = [part.name for part in PARTS]
    if unknown := set(given.only or ()) - set(names):
        parser.error(f"no part {sorted(unknown)[0]!r}; there are {', '.join(names)}.")
    if is_gpu(given.device) and not gpu_is_here():
        parser.error("no GPU is here. To try the script itself: make gpu DEVICE=cpu QUICK=1")
    tell_children_of_the_checkout()
    before = signal.signal(signal.SIGTERM, interrupted)
    begin, outcomes = time.monotonic(), list[Outcome]()
    folder = Path(tempfile.mkdtemp(prefix="albef-gpu-"))
    setting = Setting(torch.device(given.device), given.quick, folder)
    try:
        for part in PARTS:
            if given.only and part.name not in given.only:
                continue
            left = max(0.0, given.seconds - (time.monotonic() - begin))
            outcomes.append(outcome_of(part, setting, left))
            write(given.out, outcomes, setting)
    except KeyboardInterrupt:
        print("stopped", flush=True)
    signal.signal(signal.SIGTERM, before)
    shutil.rmtree(folder, ignore_errors=True)
    found = write(given.out, outcomes, setting)
    if setting.on_gpu and not setting.quick and not given.only:
        RESULTS.write_text(with_section(RESULTS.read_text("utf-8"), section(found)), "utf-8")
    Console(width=None if sys.stdout.isatty() else 140).print(table_of(outcomes, time.monotonic() - begin))
    print(f"The same as JSON: {given.out}")
    return int(any(outcome.state == "failed" for outcome in outcomes))


def tell_children_of_the_checkout() -> None:
    """Processes that load data find albef where it is not installed.

    Python's fork server imports for all of them, but does not know this process's `sys.path`. Without albef it imports
    nothing, and each of the processes imports torch by itself, one after the other.
    """
    os.environ["PYTHONPATH"] = os.pathsep.join([*PLACES, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)


def gpu_is_here() -> bool:
    """Whether torch finds a GPU; asked in another process, since this one must not begin to use it."""
    with FORK.Pool(1) as pool:
        return pool.apply(torch.cuda.device_count) > 0


def interrupted(number: int, frame: FrameType | None) -> NoReturn:
    """What is there is still shown."""
    raise KeyboardInterrupt


def outcome_of(part: Part, setting: Setting, left: float) -> Outcome:
    """Runs a part in a process of its own, if it fits."""
    planned = 0 if setting.quick else part.seconds
    if left < planned:
        print(f"{part.name}: skipped, {planned} s are planned and {left:.0f} s are left", flush=True)
        return Outcome(part.name, "skipped", f"{planned} s planned, {left:.0f} s left", 0.0, {})
    most = left if setting.quick or part is PARTS[-1] else min(left, OVERTIME * planned)
    print(f"{part.name}: {planned} s planned, {left:.0f} s left", flush=True)
    here, there = FORK.Pipe(duplex=False)
    process = FORK.Process(target=measured, args=(part, setting._replace(seconds=left), there))
    begin, figures, reason = time.monotonic(), Figures(), ""
    with warnings.catch_warnings():  # of threads that a fork would leave behind: no tensor was computed here
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    there.close()
    try:
        while True:
            if not here.poll(max(0.0, begin + most - time.monotonic())):
                reason = f"it took longer than {most:.0f} s"
                break
            kind, content = here.recv()
            if kind == "done":
                break
            if kind == "failed":
                reason = content
                break
            figures |= content
            print("".join(f"  {name}: {value}\n" for name, value in content.items()), end="", flush=True)
    except EOFError:
        process.join()
        reason = f"its process ended with exit code {process.exitcode}"
    finally:
        end(process)
    seconds = time.monotonic() - begin
    print(f"  {'failed: ' + reason if reason else 'done'}, {seconds:.1f} s", flush=True)
    return Outcome(part.name, "failed" if reason else "done", reason, seconds, figures)


def measured(part: Part, setting: Setting, there: Connection) -> None:
    """The part, in its own process: sends every figure as it comes, and at the end how it went."""
    os.setsid()  # its processes end with it
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        for figures in part.measure(setting):
            there.send(("figures", figures))
        there.send(("done", ""))
    except Exception as error:
        traceback.print_exc()
        lines = str(error).splitlines()
        there.send(("failed", f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__))


def end(process: multiprocessing.process.BaseProcess) -> None:
    """Ends a part's process, and those that it has started."""
    process.join(1.0)
    assert process.pid is not None
    with contextlib.suppress(ProcessLookupError, PermissionError):  # where it had none
        os.killpg(process.pid, signal.SIGKILL)
    process.join()


def write(file: Path, outcomes: list[Outcome], setting: Setting) -> dict[str, Any]:
    """Writes all that is known so far, whole or not at all, and gives it back."""
    file.parent.mkdir(parents=True, exist_ok=True)
    found = {
        "date": datetime.date.today().isoformat(),
        "device": str(setting.device),
        "quick": setting.quick,
        "parts": [outcome._asdict() for outcome in outcomes],
    }
    temporary = file.with_name(f".{file.name}.writing")
    temporary.write_text(json.dumps(found, indent=1), "utf-8")
    os.replace(temporary, file)
    return found


def table_of(outcomes: list[Outcome], seconds: float) -> Table:
    """The outcomes as one table."""
    table = Table("part", "", "figure", title=f"make gpu, {seconds:.0f} s", title_justify="left")
    for outcome in outcomes:
        state = outcome.state if not outcome.reason else f"{outcome.state}: {outcome.reason}"
        table.add_row(outcome.name, f"{outcome.seconds:.0f} s", state, end_section=not outcome.figures)
        for number, (name, value) in enumerate(outcome.figures.items(), 1):
            shown = f"{value:,}" if isinstance(value, int) else str(value)
            table.add_row("", name, shown, end_section=number == len(outcome.figures))
    return table


if __name__ == "__main__":
    sys.exit(main())
