"""Every task of the systems on regions trains, and two processes train as one does with two parts of a batch."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file, save_file
from torch import Tensor

from albef import distributed
from albef.config import Config, TrainConfig
from albef.data.records import Batch
from albef.objectives import LOSSES
from albef.peers.lxmert_task import LxmertVQA
from albef.peers.region_tasks import RegionTask
from albef.peers.uniter_task import UniterNLVR, UniterPretrain
from albef.train.optim import build_optimizer
from albef.train.sharding import shard
from albef.train.steps import Loop
from groups import one_of
from toy_batches import in_double
from toy_region_tasks import TASKS, HardRetrieval

STEPS, PAIRS = 4, 4  # with this seed, four steps of UNITER train all of its objectives
# Those with attention or steps of a kind of their own: sharing takes time.
SHARED = (UniterPretrain, HardRetrieval, UniterNLVR, LxmertVQA)


class Recorder:
    """A log, and checkpoints, that are kept in memory."""

    failure = None

    def __init__(self) -> None:
        self.lines: list[dict[str, float]] = []
        self.tensors: dict[str, Tensor] = {}

    def advance(self, step: int) -> None: ...

    def wait(self) -> None: ...

    def write(self, step: int, scalars: dict[str, float]) -> None:
        self.lines.append(scalars)

    def save(self, step: int, task: dict[str, Tensor], optimizer: dict[str, Tensor], facts: object) -> None:
        self.tensors = task | optimizer


def stream(toy: ModuleType) -> Iterator[Batch]:
    """This process's slice of the same batch, again and again."""
    share = PAIRS // distributed.world_size()
    part = in_double(toy.batch()).slice(distributed.rank() * share, (distributed.rank() + 1) * share)
    while True:
        yield part


def play(kind: type[RegionTask], folder: Path, micro_batch_size: int = 0, sharded: bool = False) -> None:
    """Trains a task. Its losses and what it has learned are in the folder of its name."""
    toy, run = TASKS[kind], folder / kind.__name__
    run.mkdir()
    train = TrainConfig(
        steps=STEPS, batch_size=PAIRS, micro_batch_size=micro_batch_size, lr=1e-2, warmup_steps=0, seed=6
    )
    config = Config(
        model=dataclasses.replace(toy.CONFIG, dropout=0.3),
        train=dataclasses.replace(train, log_every_steps=1),
    )
    torch.manual_seed(0)
    task = kind(config).double()
    optimizer = build_optimizer(task.student, config.train)
    if sharded:
        shard(task, optimizer, torch.device("cpu"))
    task.train()
    kept, facts = Recorder(), {"seconds": 0.0, "skipped": 0}
    Loop(config, run, task, optimizer, torch.device("cpu"), "fp32", 10, facts, kept, kept).run(stream(toy), 0)
    if distributed.rank() == 0:
        (run / "losses.json").write_text(json.dumps(kept.lines))
        save_file(kept.tensors, run / "tensors.safetensors")


def one_of_two(rank: int, folder: Path) -> None:
    with one_of(2, rank, folder):
        for kind in TASKS:
            play(kind, folder / str(rank))
            if kind in SHARED:
                play(kind, folder / f"shared {rank}", sharded=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every task as two processes trained it, and as one did."""
    folder = tmp_path_factory.mktemp("processes")
    for name in ("alone", "0", "1", "shared 0", "shared 1"):
        (folder / name).mkdir()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for kind in TASKS:
        play(kind, folder / "alone", micro_batch_size=PAIRS // 2)
    torch.set_num_threads(threads)
    multiprocessing.start_processes(one_of_two, (folder,), nprocs=2, start_method="spawn")
    return folder


@pytest.mark.parametrize(
    ("way", "kind"), [*(("0", kind) for kind in TASKS), *(("shared 0", kind) for kind in SHARED)]
)
def test_two_processes_train_as_one(runs: Path, way: str, kind: type[RegionTask]) -> None:
    said = [json.loads((runs / name / kind.__name__ / "losses.json").read_text()) for name in ("alone", way)]
    for step, (alone, two) in enumerate(zip(*said, strict=True)):
        assert alone.keys() == two.keys()
        for name in alone.keys() - {"seconds", "pairs_per_second"}:
            assert two[name] == pytest.approx(alone[name], rel=1e-8 if name in LOSSES else 1e-6), (step, name)
    expected, got = (
        load_file(runs / name / kind.__name__ / "tensors.safetensors") for name in ("alone", way)
    )
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-7, atol=1e-8, msg=name)
