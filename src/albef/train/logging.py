"""What a run writes down and shows while it trains."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from albef.manifest import plain
from albef.objectives import LOSSES
from albef.progress import duration, say
from albef.writing import append_whole

Scalars = dict[str, float]


class RunLog:
    """A line of `log.jsonl` per logged step, progress, and TensorBoard where it is installed.

    Progress is a bar on a terminal, and a printed line for each logged step in a pipe or a file. Nothing that goes
    wrong in writing stops the training: it is said once, and the training goes on without.
    """

    def __init__(self, run: Path, first_step: int, steps: int) -> None:
        self.file, self.steps = run / "log.jsonl", steps
        console = Console(markup=False)  # in a path brackets are brackets
        self.bar_is_shown = sys.stdout.isatty() and not console.is_dumb_terminal
        self.silent = False  # the last line could not be written
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}"),
            TimeRemainingColumn(),
            console=console,
            refresh_per_second=1,
            disable=not self.bar_is_shown,
        )
        self.bar = self.progress.add_task("training", total=steps, completed=first_step, shown="")
        keep_before(self.file, first_step)
        self.writer: Any = None
        with contextlib.suppress(ImportError), self.tracking():
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=first_step)

    def __enter__(self) -> RunLog:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.progress.stop()
        with self.tracking():
            if self.writer is not None:
                self.writer.close()

    def write(self, step: int, scalars: Scalars) -> None:
        """Records the figures of a step."""
        try:
            append_whole(self.file, json.dumps({"step": step, **scalars}) + "\n")
            self.silent = False
        except OSError as error:
            if not self.silent:
                self.say(f"{self.file} can't be written ({plain(error)}). Training goes on without its log.")
            self.silent = True
        with self.tracking():
            for name, value in scalars.items() if self.writer is not None else ():
                self.writer.add_scalar(name, value, step)
        losses = " ".join(f"{name} {scalars[name]:.2f}" for name in LOSSES if name in scalars)
        shown = f"{losses} {scalars['pairs_per_second']:.0f} pairs/s"
        self.progress.update(self.bar, shown=shown)
        if not self.bar_is_shown:
            pairs_left = (self.steps - step - 1) * scalars["pairs"] / (step + 1)
            left = duration(pairs_left / scalars["pairs_per_second"])
            self.say(f"step {step + 1:,} of {self.steps:,}: {shown}, {left} left")

    def advance(self, step: int) -> None:
        """Moves the bar."""
        self.progress.update(self.bar, completed=step + 1)

    def say(self, text: str) -> None:
        """Prints a line, above the bar where there is one."""
        if not self.bar_is_shown:
            say(text)
            return
        with contextlib.suppress(OSError):  # the terminal may have been closed
            self.progress.console.print(text)

    @contextlib.contextmanager
    def tracking(self) -> Iterator[None]:
        """Gives the tracker up when it fails: it is somebody else's code, on somebody else's disk."""
        try:
            yield
        except ImportError:
            raise
        except Exception as error:
            self.writer = None
            self.say(f"TensorBoard can't be written ({plain(error)}). Training goes on without it.")


def keep_before(file: Path, step: int) -> None:
    """Cuts off the lines that a resumed run will write again, and what a killed process left half-written."""
    if not file.exists():
        return
    kept = 0
    with file.open("rb") as lines, contextlib.suppress(ValueError):
        for line in lines:
            if not line.endswith(b"\n") or json.loads(line)["step"] >= step:
                break
            kept += len(line)
    with contextlib.suppress(OSError):  # a log that can't be written is told with its first line
        os.truncate(file, kept)
