"""Whether a training step became slower: versions of this repository in turn, each in a process of its own.

python benchmarks/versions.py COMMIT …      (needs git, and this checkout's Python environment)

This version runs twice: what it differs from itself is what the machine disturbs.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from section import Section

ROOT = Path(__file__).resolve().parent.parent
NOW, AGAIN = "this version", "this version again"
# Every version times its own step, with its own code of benchmarks/step.py.
WORKER = """
import sys, time
import torch
import step
from albef.config import SIZES
size, batch_size, bf16 = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "bf16"
torch.set_num_threads(1)
torch.manual_seed(0)
ours, batch = step.OurStep(step.build(SIZES[size], queue_size=1024)), step.batch_of(SIZES[size], batch_size)
for _ in sys.stdin:
    begun = time.process_time()
    ours.step(batch, bf16)
    print(time.process_time() - begun, flush=True)
"""


@contextlib.contextmanager
def trees(commits: Sequence[str]) -> Iterator[dict[str, Path]]:
    """Where the files of each version are, while the block runs."""
    with tempfile.TemporaryDirectory() as folder:
        found = {
            NOW: ROOT,
            **{commit: Path(folder) / str(n) for n, commit in enumerate(commits)},
            AGAIN: ROOT,
        }
        try:
            for commit in commits:
                git("worktree", "add", "--quiet", "--detach", str(found[commit]), commit)
            yield found
        finally:
            for commit in commits:
                git("worktree", "remove", "--force", str(found[commit]))


def git(*arguments: str) -> None:
    """Runs git in this repository."""
    subprocess.run(["git", "-C", str(ROOT), *arguments], check=True)


class Worker:
    """A process that takes a step of one version whenever it is asked."""

    def __init__(self, tree: Path, arguments: Sequence[str]) -> None:
        paths = os.pathsep.join([str(tree / "src"), str(tree / "benchmarks")])
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, *arguments],
            env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            cwd=tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self) -> float:
        """CPU seconds of one step."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def timed(found: Mapping[str, Path], arguments: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Seconds of each round by version. The versions take turns, in a new order each round."""
    workers = {name: Worker(tree, arguments) for name, tree in found.items()}
    try:
        for worker in workers.values():
            worker.seconds()  # the first step is slower
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        for _ in range(rounds):
            for name in random.sample(list(workers), len(workers)):
                seconds[name].append(workers[name].seconds())
    finally:
        for worker in workers.values():
            worker.process.kill()
            worker.process.communicate()
    return seconds


def section_of(seconds: Mapping[str, Sequence[float]], what: str) -> Section:
    """The table: the median of each version, and the median over rounds of its time divided by this version's."""
    rows = [
        [
            name,
            f"{statistics.median(own):.3f} s",
            f"{statistics.median(a / b for a, b in zip(own, seconds[NOW], strict=True)):.3f}",
        ]
        for name, own in seconds.items()
    ]
    rounds = len(seconds[NOW])
    text = (
        f"{what}, one thread, CPU time of {rounds} rounds in turn. A ratio above 1: this version is faster."
    )
    return Section("A training step of several versions", text, ["version", "median", "ratio"], rows)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commits", nargs="+", metavar="COMMIT", help="versions to compare with")
    parser.add_argument("--size", default="tiny", help="size of the model (default: tiny)")
    parser.add_argument("--batch", default=64, type=int, help="pairs in a step (default: 64)")
    parser.add_argument("--bf16", action="store_true", help="compute in bf16 by autocast")
    parser.add_argument("--rounds", default=15, type=int, help="counted rounds (default: 15)")
    given = parser.parse_args()
    precision = "bf16" if given.bf16 else "fp32"
    with trees(given.commits) as found:
        seconds = timed(found, [given.size, str(given.batch), precision], given.rounds)
    Console().print(section_of(seconds, f"Size {given.size}, batch {given.batch}, {precision}").table())


if __name__ == "__main__":
    main()
