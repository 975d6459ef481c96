"""One run, however many processes compute it: alone, two that average gradients, two that share the weights."""

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
import torch
import torch.multiprocessing as multiprocessing
from safetensors.torch import load_file
from torch import Tensor

import toy
import toy_clip
from albef import distributed
from albef.config import Config, ModelConfig, TaskConfig, TrainConfig
from albef.data.records import Batch
from albef.systems import build_task
from albef.tasks import contrast
from albef.tasks.base import Negatives, Output
from albef.tasks.pretrain import Pretrain
from albef.train.checkpoint import CheckpointWriter, load_checkpoint
from albef.train.optim import build_optimizer
from albef.train.sharding import shard
from albef.train.steps import Loop
from groups import one_of

STEPS, PAIRS = 20, 8
Loss = Literal["itc", "itm", "mlm"]
LOSSES: tuple[Loss, ...] = ("itc", "itm", "mlm")


@dataclass(frozen=True)
class Case:
    """A run of the toy model, in as many processes as there are where it is called."""

    name: str
    steps: int = STEPS
    micro_batch_size: int = 0
    sharded: bool = False
    double: bool = True
    precision: str = "fp32"
    dropout: float = 0.0
    nan_at: int = -1  # step in which the last process's loss is NaN
    given_negatives: bool = True
    losses: tuple[Loss, ...] = LOSSES
    model: ModelConfig = toy.MODEL
    resume: str = ""  # the case from whose checkpoint at half time this one starts

    def config(self) -> Config:
        train = TrainConfig(
            steps=self.steps,
            batch_size=PAIRS,
            micro_batch_size=self.micro_batch_size,
            lr=1e-3,
            min_lr=1e-3,  # so that the rate doesn't depend on the number of steps
            warmup_steps=2,
            log_every_steps=1,
            checkpoint_every_steps=STEPS // 2,
        )
        task = TaskConfig(losses=self.losses, queue_size=3 * PAIRS - 1, alpha_ramp_steps=4)
        config = toy.config(task=task, train=train)
        # Positions of the image encoder serve fusion too, outside of the encoder's own forward.
        model = dataclasses.replace(self.model, dropout=self.dropout, fuse_placed_patches=True)
        return dataclasses.replace(config, model=model)


CASES = [
    Case("averaged"),
    Case("averaged in parts", steps=STEPS // 2, micro_batch_size=2),
    Case("shared", sharded=True),
    Case("shared in parts", steps=STEPS // 2, micro_batch_size=2, sharded=True),
    Case("shared from alone", sharded=True, resume="alone"),
    Case("fp32", steps=1, double=False),
    Case("fp32 shared", steps=1, double=False, sharded=True),
    Case("bf16 shared", steps=1, double=False, sharded=True, precision="bf16"),
    Case("drawn", steps=1, dropout=0.3, given_negatives=False),
    Case("nan", steps=6, nan_at=3),
    Case("clip averaged", model=toy_clip.CONFIG),
    Case("clip averaged in parts", steps=STEPS // 2, micro_batch_size=2, model=toy_clip.CONFIG),
    Case("clip shared", sharded=True, model=toy_clip.CONFIG),
    Case("nan shared", steps=6, nan_at=3, sharded=True),
    *(Case(f"{loss} averaged", steps=3, losses=(loss,)) for loss in LOSSES),
]


class Recorder:
    """A log that is kept in memory."""

    def __init__(self) -> None:
        self.lines: list[dict[str, float]] = []

    def advance(self, step: int) -> None: ...

    def write(self, step: int, scalars: dict[str, float]) -> None:
        self.lines.append({"step": step, **scalars})


def neighbours(aligned: contrast.Aligned, first_row: int, hardness: float) -> tuple[Negatives, Tensor]:
    """For each pair the one beside it, which is in the same part however the batch is cut."""
    rows = torch.arange(len(aligned.same)) ^ 1
    return Negatives(rows, rows), torch.ones(len(rows), 2, dtype=torch.bool)


def stream(first_step: int, double: bool) -> Iterator[Batch]:
    """This process's slice of every step's batch, in which one half has more masked words than the other."""
    for step in range(first_step, 10**6):
        batch = toy.batch(PAIRS, seed=step, length=8, masked=3)
        kept = torch.arange(len(batch.mlm_positions)) % 5 < 2 + 2 * (batch.mlm_positions < 30)
        batch = dataclasses.replace(
            batch,
            pixels=batch.pixels.double() if double else batch.pixels,
            mlm_positions=batch.mlm_positions[kept],
            mlm_labels=batch.mlm_labels[kept],
        )
        share = PAIRS // distributed.world_size()
        yield batch.slice(distributed.rank() * share, (distributed.rank() + 1) * share)


def play(case: Case, folder: Path) -> None:
    """Trains a case; its losses and checkpoints are in the folder of its name."""
    config, run = case.config(), folder / case.name
    run.mkdir(exist_ok=True)
    torch.manual_seed(0)
    task = build_task(config).to(torch.float64 if case.double else torch.float32)
    optimizer = build_optimizer(task.student, config.train)
    first_step = 0
    if case.resume:
        first_step = STEPS // 2
        load_checkpoint(folder / case.resume / "checkpoints" / f"step-{first_step:08d}", task, optimizer)
    if case.sharded:
        shard(task, optimizer, torch.device("cpu"), bf16=case.precision == "bf16")
    dtypes: list[torch.dtype] = []
    layer = task.student.image_encoder.blocks[0].mlp.up
    layer.register_forward_pre_hook(lambda layer, _: dtypes.append(layer.weight.dtype))
    task.train()
    log = Recorder()
    facts = {"seconds": 0.0, "skipped": 0}
    writer = CheckpointWriter(run / "checkpoints", {}, keep=9, first_step=first_step)
    loop = Loop(config, run, task, optimizer, torch.device("cpu"), case.precision, 10, facts, log, writer)
    with pytest.MonkeyPatch.context() as patch:
        if case.given_negatives:
            patch.setattr(contrast, "draw_negatives", neighbours)
        if case.nan_at >= 0:
            poison(patch, case.nan_at)
        with writer:
            loop.run(stream(first_step, case.double), first_step)
    if distributed.rank() == 0:
        (run / "losses.json").write_text(json.dumps(log.lines))
    (run / "dtype").write_text(str(dtypes[0]))
    (run / f"skipped-{distributed.rank()}").write_text(str(facts["skipped"]))


def poison(patch: pytest.MonkeyPatch, step: int) -> None:
    """Makes the loss NaN in one step of the last process."""
    forward, calls = Pretrain.forward, iter(range(10**6))

    def forward_with_nan(self: Pretrain, *arguments: object) -> Output:
        output = forward(self, *arguments)
        if next(calls) == step and distributed.rank() == distributed.world_size() - 1:
            output.losses["itc"] = output.losses["itc"] * math.nan
        return output

    patch.setattr(Pretrain, "forward", forward_with_nan)


def one_of_two(rank: int, folder: Path) -> None:
    with one_of(2, rank, folder):
        for case in CASES:
            play(case, folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every case as two processes trained it, and the same alone."""
    folder = tmp_path_factory.mktemp("processes")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for case in (
        Case("alone"),
        Case("clip alone", model=toy_clip.CONFIG),
        Case("fp32 alone", steps=1, double=False),
        Case("bf16 alone", steps=1, double=False, precision="bf16"),
        Case("drawn alone", steps=1, dropout=0.3, given_negatives=False, micro_batch_size=PAIRS // 2),
        *(Case(f"{loss} alone", steps=3, losses=(loss,)) for loss in LOSSES),
    ):
        play(case, folder)
    multiprocessing.start_processes(one_of_two, (folder,), nprocs=2, start_method="spawn")
    play(Case("alone from shared", resume="shared"), folder)
    torch.set_num_threads(threads)
    return folder


def tensors_of(folder: Path, step: int) -> dict[str, Tensor]:
    checkpoint = folder / "checkpoints" / f"step-{step:08d}"
    return load_file(checkpoint / "task.safetensors") | load_file(checkpoint / "optimizer.safetensors")


def losses_of(folder: Path) -> dict[int, list[float]]:
    lines = json.loads((folder / "losses.json").read_text())
    return {line["step"]: [line[name] for name in LOSSES if name in line] for line in lines}


@pytest.mark.parametrize(
    "name",
    [
        "averaged",
        "averaged in parts",
        "shared",
        "shared in parts",
        "shared from alone",
        "alone from shared",
        "clip averaged",
        "clip averaged in parts",
        "clip shared",
    ],
)
def test_twenty_steps_are_those_of_one_process(runs: Path, name: str) -> None:
    same = "clip alone" if "clip" in name else "alone"
    alone = losses_of(runs / same)
    for step, losses in losses_of(runs / name).items():
        assert losses == pytest.approx(alone[step], rel=1e-8, abs=1e-8), step
    last = step + 1
    assert last == (STEPS // 2 if "parts" in name else STEPS)
    expected, got = tensors_of(runs / same, last), tensors_of(runs / name, last)
    assert expected.keys() == got.keys()
    for tensor_name, tensor in expected.items():
        torch.testing.assert_close(got[tensor_name], tensor, rtol=1e-7, atol=1e-8, msg=tensor_name)


@pytest.mark.parametrize("name", ["fp32", "fp32 shared"])
def test_the_first_step_in_single_precision_too(runs: Path, name: str) -> None:
    expected, got = losses_of(runs / "fp32 alone"), losses_of(runs / name)
    assert got[0] == pytest.approx(expected[0], rel=1e-6)


def test_slices_are_cast_before_they_are_put_together(runs: Path) -> None:
    assert (runs / "bf16 shared" / "dtype").read_text() == "torch.bfloat16"
    assert (runs / "fp32 shared" / "dtype").read_text() == "torch.float32"
    expected, got = losses_of(runs / "bf16 alone"), losses_of(runs / "bf16 shared")
    # Products of other sizes and on other numbers of threads are rounded otherwise: bf16 has 8 bits.
    assert got[0] == pytest.approx(expected[0], rel=2**-8)
    tensors = tensors_of(runs / "bf16 shared", 1)
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float32}


def test_dropout_and_draws_belong_to_the_part_and_not_to_the_process(runs: Path) -> None:
    expected, got = losses_of(runs / "drawn alone"), losses_of(runs / "drawn")
    assert got[0] == pytest.approx(expected[0], rel=1e-8)
    assert got[0] != pytest.approx(losses_of(runs / "alone")[0], rel=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
def test_a_single_loss_trains_among_processes_as_alone(runs: Path, loss: str) -> None:
    expected, got = tensors_of(runs / f"{loss} alone", 3), tensors_of(runs / f"{loss} averaged", 3)
    assert expected.keys() == got.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-7, atol=1e-8, msg=name)


@pytest.mark.parametrize("name", ["nan", "nan shared"])
def test_nan_in_one_process_is_skipped_by_both(runs: Path, name: str) -> None:
    assert [(runs / name / f"skipped-{rank}").read_text() for rank in (0, 1)] == ["1", "1"]
    tensors = tensors_of(runs / name, 6)
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert int(tensors["queue.pointer"]) == 5 * PAIRS % (3 * PAIRS - 1)
    assert int(tensors["image_encoder.patches.weight.step"]) == 5
    losses, undisturbed = losses_of(runs / name), losses_of(runs / "alone")
    assert math.isnan(losses[3][0])
    for step in range(3):
        assert losses[step] == pytest.approx(undisturbed[step], rel=1e-8)
    assert losses[4] != pytest.approx(undisturbed[4], rel=1e-4)  # for want of a step
