"""Trainings that users' scripts call: without a main guard they get a sentence about just that, at once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from pathlib import Path
from albef import load_recipe
from albef.run import run

settings = ["--data.workers=1", "--train.threads=1"] if WORKERS else ["--train.processes=2"]
run(load_recipe(Path("recipe.yaml"), settings), Path("run"))
"""
RECIPE = """
model: {size: tiny, image_depth: 1, vocab_size: 100}
data: {count: 24, randaugment: false}
task: {queue_size: 0}
train: {steps: 2, batch_size: 4, warmup_steps: 1, precision: fp32, attention: plain, linear: torch}
"""


@pytest.mark.parametrize("workers", [True, False])
@pytest.mark.parametrize("read", ["from a file", "from standard input"])
def test_a_script_without_a_guard(tmp_path: Path, workers: bool, read: str) -> None:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    script = tmp_path / "train.py"
    script.write_text(SCRIPT.replace("WORKERS", str(workers)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with script.open() as text:
        arguments, given = (["train.py"], None) if read == "from a file" else (["-"], text)
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            stdin=given,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
    last = done.stderr.splitlines()[-1]
    assert done.returncode == 1
    if read == "from a file":
        assert 'Put the call under `if __name__ == "__main__":`' in last
    else:
        assert "Save it as a file" in last
    assert done.stderr.count("Traceback") == 1  # of the script's own call
