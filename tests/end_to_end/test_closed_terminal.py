"""A terminal that is closed during a training: it saves and stops as if it had been asked to."""

import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from albef.cli.runs import run_state

RECIPE = """
model: {size: tiny, image_depth: 1, vocab_size: 100}
data: {count: 24, randaugment: false, flip: false}
task: {queue_size: 0}
train: {steps: 1000000, batch_size: 4, warmup_steps: 1, precision: fp32, attention: plain, linear: torch, threads: 1,
  log_every_steps: 1}
"""
PATIENCE_SECONDS = 100


@pytest.mark.parametrize("setting", ["--train.processes=2", "--data.workers=1"])
def test_a_closed_terminal_loses_nothing(tmp_path: Path, setting: str) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    ours, theirs = os.openpty()

    def own_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it may be ignored here, as under nohup
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)

    command = [
        sys.executable,
        "-m",
        "albef",
        "train",
        "recipe.yaml",
        "--out",
        "run",
        setting,
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "TERM": "xterm"}
    training = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=own_terminal,
    )
    os.close(theirs)
    log, started = tmp_path / "run" / "log.jsonl", time.monotonic()
    try:
        while not (log.exists() and log.stat().st_size):
            os.set_blocking(ours, False)
            try:
                os.read(ours, 10_000)
            except BlockingIOError:
                time.sleep(0.05)
            assert training.poll() is None
            assert time.monotonic() - started < PATIENCE_SECONDS
        os.close(ours)
        assert training.wait(PATIENCE_SECONDS) == 129
        steps = log.read_text().count("\n")
        assert run_state(tmp_path / "run").step == steps
    finally:
        training.kill()
