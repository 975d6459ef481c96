"""Processes that go on with a run go on from the same checkpoint, or none of them does."""

import json
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing

import toy
from albef import manifest
from albef.config import Config, TrainConfig, UserError
from albef.recipe import load_recipe
from albef.run import prepare
from albef.train import loop
from albef.train.checkpoint import checkpoints_in

STEPS = 6
CASES = ("sound", "read error", "read error at loading", "another file", "damaged for all")


def config() -> Config:
    settings = TrainConfig(
        steps=STEPS,
        batch_size=4,
        warmup_steps=2,
        precision="fp32",
        attention="fused",
        linear="torch",
        threads=1,
        log_every_steps=1,
        checkpoint_every_steps=2,
        keep_checkpoints=9,
    )
    return toy.config(train=settings)


def process(rank: int, folder: Path) -> None:
    """One of two that go on with the run of each case; what came out is written down."""
    torch.set_num_threads(1)
    store, patience = f"file://{folder}/store", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2, timeout=patience)
    for case in CASES:
        run = folder / case
        with pytest.MonkeyPatch.context() as patch:
            if rank == 1:
                hinder(patch, case, run)
            try:
                loop.train(load_recipe(run / "config.yaml"), run)
                said = "trained"
            except UserError as error:
                said = str(error)
        (folder / f"{case}-{rank}.txt").write_text(said)
        dist.barrier()
    dist.destroy_process_group()


def hinder(patch: pytest.MonkeyPatch, case: str, run: Path) -> None:
    """What happens to the second process alone."""
    newest = str(run / "checkpoints" / "step-00000004")
    digest, load = manifest.digest, loop.load_checkpoint

    def read(file: Path, hash_name: str) -> str:
        if str(file).startswith(newest):
            raise OSError(5, "Input/output error")
        return digest(file, hash_name)

    def load_nothing(*given: object) -> object:
        raise UserError("step-00000004: this checkpoint does not fit this run (Input/output error).")

    def load_another(folder: Path, *given: object) -> object:
        return load(folder.with_name("step-00000002"), *given)

    if case == "read error":
        patch.setattr(manifest, "digest", read)
    elif case == "read error at loading":
        patch.setattr(loop, "load_checkpoint", load_nothing)
    elif case == "another file":
        patch.setattr(loop, "load_checkpoint", load_another)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what each process says of each case."""
    folder = tmp_path_factory.mktemp("checkpoints")
    first = folder / CASES[0]
    loop.train(prepare(config(), first), first)
    last = checkpoints_in(first / "checkpoints")[-1]
    shutil.rmtree(last)
    for case in CASES[1:]:
        shutil.copytree(first, folder / case)
    damaged = folder / "damaged for all" / "checkpoints" / "step-00000004" / "task.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    multiprocessing.start_processes(process, (folder,), nprocs=2, start_method="spawn")
    return folder


def said(outcomes: Path, case: str) -> list[str]:
    return [(outcomes / f"{case}-{rank}.txt").read_text() for rank in (0, 1)]


def steps_logged(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", ["sound", "damaged for all"])
def test_both_go_on_from_the_one_that_the_first_finds_whole(outcomes: Path, case: str) -> None:
    assert said(outcomes, case) == ["trained", "trained"]
    assert steps_logged(outcomes / case) == list(range(STEPS))
    names = [path.name for path in (outcomes / case / "checkpoints").iterdir()]
    assert "step-00000006" in names
    assert ("damaged-step-00000004" in names) == (case == "damaged for all")


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("read error", r"Process 1 cannot load .*step-00000004.*Input/output error"),
        ("read error at loading", r"Process 1 cannot load .*Input/output error"),
        ("another file", r"process 1 read a checkpoint of step 2 there, the first process one of step 4"),
    ],
)
def test_what_one_of_them_cannot_read_stops_both(outcomes: Path, case: str, reason: str) -> None:
    first, second = said(outcomes, case)
    assert first == second
    with pytest.raises(UserError, match=reason):
        raise UserError(first)
    assert checkpoints_in(outcomes / case / "checkpoints")[-1].name == "step-00000004"
