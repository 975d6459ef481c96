"""The log of a training: a file, a progress bar or lines, and TensorBoard."""

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
    """Writes a line of `log.jsonl` for each logged step, shows progress, and feeds TensorBoard if it is installed.

    On a terminal progress is a bar. Into a pipe or file it is a line for each logged step. If a log cannot be
    written, this is said once, and training continues without it.
    """

    def __init__(self, run: Path, first_step: int, steps: int) -> None:
        self.file, self.steps = run / "log.jsonl", steps
        console = Console(markup=False)  # brackets in a path are not markup
        self.bar_is_shown = sys.stdout.isatty() and not console.is_dumb_terminal
        self.silent = False  # the last line could not be written
        self.explained = False  # what the names of the losses mean
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
        """Logs and shows the figures of a step."""
        try:
            append_whole(self.file, json.dumps({"step": step, **scalars}) + "\n")
            self.silent = False
        except OSError as error:
            if not self.silent:
                self.say(f"{self.file} cannot be written ({plain(error)}). Training continues without it.")
            self.silent = True
        with self.tracking():
            for name, value in scalars.items() if self.writer is not None else ():
                self.writer.add_scalar(name, value, step)
        losses = [name for name in LOSSES if name in scalars]
        if not self.explained:
            names = ", ".join(f"{name} = {LOSSES[name]}" for name in losses)
            self.say(f"Losses: {names}. A pair is an image with a text.")
            self.explained = True
        loss = ", ".join(f"{name} {scalars[name]:.2f}" for name in losses)
        shown = f"loss {loss}; {scalars['pairs_per_second']:.0f} pairs/s"
        self.progress.update(self.bar, shown=shown)
        if not self.bar_is_shown:
            pairs_left = (self.steps - step - 1) * scalars["pairs"] / (step + 1)
            left = duration(pairs_left / scalars["pairs_per_second"])
            self.say(f"step {step + 1:,} of {self.steps:,}: {shown}; {left} left")

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
        """Gives TensorBoard up if it fails, so that its errors do not stop the training."""
        try:
            yield
        except ImportError:
            raise
        except Exception as error:
            self.writer = None
            self.say(
                f"TensorBoard's files cannot be written ({plain(error)}). Training continues without them."
            )


def keep_before(file: Path, step: int) -> None:
    """Cuts off the lines that a resumed run will write again, and a half-written line of a killed process."""
    if not file.exists():
        return
    kept = 0
    with file.open("rb") as lines, contextlib.suppress(ValueError):
        for line in lines:
            if not line.endswith(b"\n") or json.loads(line)["step"] >= step:
                break
            kept += len(line)
    with contextlib.suppress(OSError):  # reported when the first line is written
        os.truncate(file, kept)
