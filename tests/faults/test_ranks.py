"""Training under torchrun, of whose two processes one is killed or stopped at a random moment."""

import dataclasses
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from faulty import number_of, tell
from safetensors.torch import load_file

import toy
from albef.config import Config, TaskConfig, TrainConfig
from albef.recipe import dump_config

KILLS, STOPS = number_of(3, 30), number_of(1, 10)
STEPS, TIMEOUT_SECONDS, PATIENCE_SECONDS = 100, 20, 240


def config() -> Config:
    train = TrainConfig(
        steps=STEPS,
        batch_size=4,
        precision="fp32",
        attention="fused",
        linear="torch",
        threads=1,
        log_every_steps=1,
        checkpoint_every_steps=10,
        timeout_seconds=TIMEOUT_SECONDS,
    )
    # Retrieval rather than pre-training, which ends with a report.
    found = toy.config(task=TaskConfig(name="retrieval", queue_size=10), train=train)
    return dataclasses.replace(found, evaluate=dataclasses.replace(found.evaluate, count=4))


class Run:
    """`torchrun … -m albef train` in two processes, allowed one restart."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        recipe = folder.with_suffix(".yaml")
        recipe.write_text(dump_config(config()))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        command += ["--max-restarts=1"]
        command += ["-m", "albef", "train", str(recipe), "--out", str(folder)]
        with folder.with_suffix(".txt").open("w") as output:
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)

    def ranks(self) -> list[int]:
        """Process numbers of the two."""
        number = self.process.pid
        file = Path(f"/proc/{number}/task/{number}/children")
        return [int(child) for child in file.read_text().split()] if file.exists() else []

    def last_step(self) -> int:
        """The last step in the log; -1 before the first."""
        file = self.folder / "log.jsonl"
        return len(file.read_text().splitlines()) - 1 if file.exists() else -1

    def until(self, condition: object) -> float:
        """Seconds until the condition holds."""
        started = time.perf_counter()
        while not condition():
            assert self.process.poll() is None, self.said()
            assert time.perf_counter() - started < PATIENCE_SECONDS, self.said()
            time.sleep(0.005)
        return time.perf_counter() - started

    def until_it_goes_on(self, before: list[int]) -> tuple[float, float]:
        """Seconds until there are two processes other than those of before, and until they have done a step."""
        started, seen = time.perf_counter(), STEPS
        replaced = self.until(lambda: len(set(self.ranks()) - set(before)) == 2)

        def has_grown() -> bool:
            nonlocal seen
            grown, seen = self.last_step() > seen, self.last_step()
            return grown

        self.until(has_grown)
        return replaced, time.perf_counter() - started

    def finish(self) -> dict[str, torch.Tensor]:
        """Everything that the run ended with."""
        assert self.process.wait(PATIENCE_SECONDS) == 0, self.said()
        checkpoint = self.folder / "checkpoints" / f"step-{STEPS:08d}"
        tensors = load_file(checkpoint / "task.safetensors")
        return tensors | load_file(checkpoint / "optimizer.safetensors")

    def losses(self) -> list[str]:
        lines = (self.folder / "log.jsonl").read_text().splitlines()
        return [line.split('"mi_i2t"')[0] for line in lines]

    def said(self) -> str:
        return self.folder.with_suffix(".txt").read_text()[-4000:]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("undisturbed") / "run")
    run.finish()
    assert (run.folder / "metrics.json").exists()
    return run


@pytest.fixture
def moments() -> Iterator[random.Random]:
    """The moments are the same in every run of this test, the machine is not."""
    return random.Random(0)


def check_equal(run: Run, undisturbed: Run) -> None:
    expected, got = undisturbed.finish(), run.finish()
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        assert torch.equal(got[name], tensor), name
    assert run.losses() == undisturbed.losses()


def listed(seconds: list[tuple[float, float]]) -> str:
    return "; ".join(f"{first:.1f}, {second:.1f}" for first, second in seconds)


def test_a_killed_rank_loses_nothing(tmp_path: Path, undisturbed: Run, moments: random.Random) -> None:
    seconds: list[tuple[float, float]] = []
    for number in range(KILLS):
        run, step = Run(tmp_path / f"killed-{number}"), moments.randrange(1, STEPS - 30)
        run.until(lambda run=run, step=step: run.last_step() >= step)
        ranks = run.ranks()
        os.kill(ranks[moments.randrange(2)], signal.SIGKILL)
        seconds.append(run.until_it_goes_on(ranks))
        check_equal(run, undisturbed)
    tell(
        f"a rank killed: {len(seconds)} of {KILLS} recovered on the first restart and ended bit-identical; "
        f"seconds to new processes, and to the next step: {listed(seconds)}"
    )


def test_a_stopped_rank_is_noticed(tmp_path: Path, undisturbed: Run, moments: random.Random) -> None:
    noticed: list[float] = []
    recovered: list[tuple[float, float]] = []
    for number in range(STOPS):
        run, step = Run(tmp_path / f"stopped-{number}"), moments.randrange(1, STEPS - 30)
        run.until(lambda run=run, step=step: run.last_step() >= step)
        ranks = run.ranks()
        os.kill(ranks[moments.randrange(2)], signal.SIGSTOP)
        noticed.append(run.until(lambda run=run, ranks=ranks: not set(ranks) <= set(run.ranks())))
        recovered.append(run.until_it_goes_on(ranks))
        check_equal(run, undisturbed)
    tell(
        f"a rank stopped: {len(noticed)} of {STOPS} recovered and ended bit-identical; noticed after "
        f"{', '.join(f'{each:.1f}' for each in noticed)} s (timeout {TIMEOUT_SECONDS} s); seconds from there to new "
        f"processes, and to the next step: {listed(recovered)}"
    )
