"""The commands under torchrun: two processes train, evaluate at the end of it, and evaluate again."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import toy
from albef.cli import main
from albef.config import TaskConfig
from albef.recipe import dump_config


def torchrun(*arguments: str) -> str:
    """What two processes say."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, "-m", "albef", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def test_two_processes_train_and_evaluate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = toy.config(task=TaskConfig(name="retrieval", queue_size=10, alpha_ramp_steps=4))
    config = dataclasses.replace(config, evaluate=dataclasses.replace(config.evaluate, count=70))
    recipe, run = tmp_path / "toy.yaml", tmp_path / "run"
    recipe.write_text(dump_config(config))
    said = torchrun("train", str(recipe), "--out", str(run))
    assert said.count("Report: ") == 1
    asked = ["evaluate", str(run), "--split", "test", "--count", "70", "--top-k", "4", "--json"]
    said = torchrun(*asked, str(tmp_path / "two.json"))
    assert said.count("text→image") == 1  # one table
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    main([*asked, str(tmp_path / "one.json")])
    torch.set_num_threads(threads)
    trained, two, one = (
        json.loads(file.read_text())
        for file in (run / "metrics.json", tmp_path / "two.json", tmp_path / "one.json")
    )
    assert two == one
    assert {name: trained[name] for name in two} == two
