"""Toy trainings in processes that may be killed, and what the fault tests share."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

import toy
from albef.config import Config, DataConfig, ModelConfig, TrainConfig
from albef.manifest import read_manifest
from albef.run import prepare
from albef.train.checkpoint import checkpoints_in
from albef.train.loop import train
from albef.train.stopping import Interrupted

FULL = os.environ.get("ALBEF_FAULTS") == "full"  # the long set, `make test-faults`
STEPS, INTERVAL = 15, 3  # of a toy training, and between its checkpoints

TOLD: list[str] = []

# Everything is imported once, in a server that starts the trainings as forks of itself.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["albef.run", "torch.utils.tensorboard", "torch._dynamo"])


def number_of(short: int, full: int) -> int:
    """How often a fault is injected."""
    return full if FULL else short


def config(model: ModelConfig = toy.MODEL, data: DataConfig | None = None) -> Config:
    """A toy training that takes about a second and writes a checkpoint every few steps."""
    settings = TrainConfig(
        steps=STEPS,
        batch_size=4,
        warmup_steps=2,
        precision="fp32",
        attention="fused",
        linear="torch",
        threads=1,
        log_every_steps=1,
        checkpoint_every_steps=INTERVAL,
    )
    return dataclasses.replace(toy.config(train=settings, data=data), model=model)


def training(
    folder: Path,
    change: Callable[[], None] | None = None,
    model: ModelConfig = toy.MODEL,
    data: DataConfig | None = None,
) -> None:
    """What a training process does; its exit code is that of `albef train`."""
    if change is not None:
        change()
    sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    try:
        train(prepare(config(model, data), folder), folder)
    except Interrupted as stop:
        sys.exit(stop.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def start(
    folder: Path,
    change: Callable[[], None] | None = None,
    model: ModelConfig = toy.MODEL,
    data: DataConfig | None = None,
) -> multiprocessing.context.ForkServerProcess:
    """A training that has been started in a process of its own."""
    process = PROCESSES.Process(target=training, args=(folder, change, model, data))
    process.start()
    return process


def finish(folder: Path, model: ModelConfig = toy.MODEL, data: DataConfig | None = None) -> None:
    """Trains to the end in a process of its own."""
    process = start(folder, model=model, data=data)
    process.join(120)
    assert process.exitcode == 0, process.exitcode


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.0005)
    return True


def weights(folder: Path) -> dict[str, Tensor]:
    """Everything in the last checkpoint: student, teacher, queue and optimizer."""
    last = checkpoints_in(folder / "checkpoints")[-1]
    return {
        f"{file.name} {name}": tensor
        for file in sorted(last.glob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def losses(folder: Path) -> list[tuple[float, ...]]:
    """Step and losses of every line of the log."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    names = ("step", "itc", "itm", "mlm", "grad_norm")
    return [tuple(line[name] for name in names if name in line) for line in lines]


def last_step(folder: Path) -> int:
    """Of the newest checkpoint; 0 when there is none."""
    checkpoints = checkpoints_in(folder / "checkpoints")
    return int(read_manifest(checkpoints[-1]).facts["step"]) if checkpoints else 0


def assert_same_run(folder: Path, undisturbed: Path) -> None:
    """Loss sequence and everything that was learned are bit-identical."""
    assert losses(folder) == losses(undisturbed)
    ours, theirs = weights(folder), weights(undisturbed)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def with_train(config: Config, **settings: object) -> Config:
    """The configuration with other settings of the training."""
    return dataclasses.replace(config, train=dataclasses.replace(config.train, **settings))


def tell(text: str) -> None:
    """A count for the end of the tests' output."""
    TOLD.append(text)
