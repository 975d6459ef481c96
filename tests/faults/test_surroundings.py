"""What surrounds the training breaks, or its own numbers do: it goes on as if nothing had happened."""

import json
import math
import os
import random
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from faulty import PROCESSES, assert_same_run, config, start, tell, weights, with_train

from albef import distributed
from albef.config import Config
from albef.run import prepare
from albef.tasks.base import Output
from albef.tasks.pretrain import Pretrain
from albef.train.logging import RunLog
from albef.train.loop import train
from albef.train.steps import Loop


@pytest.fixture(autouse=True)
def keep_threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_a_full_log_disk(
    tmp_path: Path,
    undisturbed: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, enter = tmp_path / "run", RunLog.__enter__

    def enter_with_a_full_disk(self: RunLog) -> RunLog:
        self.file.symlink_to("/dev/full")
        return enter(self)

    monkeypatch.setattr(RunLog, "__enter__", enter_with_a_full_disk)
    train(prepare(config(), run), run)
    assert " ".join(capsys.readouterr().out.split()).count("Training continues without it") == 1
    same_weights(run, undisturbed)
    tell("log disk full: said once, weights bit-identical")


def same_weights(run: Path, undisturbed: Path) -> None:
    ours, theirs = weights(run), weights(undisturbed)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def broken_at_start() -> None:
    from torch.utils import tensorboard

    def no_room(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    tensorboard.SummaryWriter.__init__ = no_room


def broken_later() -> None:
    from torch.utils.tensorboard import SummaryWriter

    add_scalar = SummaryWriter.add_scalar

    def sometimes(self: SummaryWriter, name: str, value: float, step: int) -> None:
        if step == 5:
            raise ConnectionError("the tracker is down")
        add_scalar(self, name, value, step)

    SummaryWriter.add_scalar = sometimes


def jumping_clock() -> None:
    now, random_ = time.time, random.Random(0)
    time.time = lambda: now() + random_.uniform(-1e8, 1e8)


@pytest.mark.parametrize("fault", [broken_at_start, broken_later, jumping_clock], ids=lambda f: f.__name__)
def test_tracker_and_clock(tmp_path: Path, undisturbed: Path, fault) -> None:
    process = start(tmp_path / "run", fault)
    process.join(120)
    assert process.exitcode == 0
    assert_same_run(tmp_path / "run", undisturbed)
    tell(f"{fault.__name__.replace('_', ' ')}: log and weights bit-identical")


KINDS = ("loss nan", "loss inf", "gradient nan", "gradient inf")
BAD_STEPS, ALL_STEPS = 20, 60
CHOSEN = set(random.Random(0).sample(range(ALL_STEPS), BAD_STEPS))


class Poison:
    """Makes loss or gradient bad at the chosen steps, of two processes in one, and sees that nothing changes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.step, self.compared = -1, 0
        self.before: dict[str, torch.Tensor] | None = None
        forward, everywhere = Pretrain.forward, Loop.everywhere
        patch.setattr(Pretrain, "forward", lambda *given: self.poisoned(forward(*given)))
        patch.setattr(Loop, "everywhere", lambda *given: self.watched(everywhere, *given))

    def poisoned(self, output: Output) -> Output:
        self.step += 1
        if self.step in CHOSEN and self.step % distributed.world_size() == distributed.rank():
            kind, what = KINDS[self.step // 2 % 4].split()
            if kind == "loss":
                output.losses["itc"] = output.losses["itc"] * float(what)
            else:
                output.losses["itc"].register_hook(lambda gradient: gradient * float(what))
        return output

    def watched(
        self, everywhere: Callable[..., tuple[object, bool, bool]], loop: Loop, *given: object
    ) -> object:
        now = everything(loop)
        if self.before is not None:  # the step before was a bad one
            assert now.keys() == self.before.keys()
            assert all(torch.equal(now[name], self.before[name]) for name in now)
            self.compared += 1
        scalars, good, stop = everywhere(loop, *given)
        assert good == (self.step not in CHOSEN)
        self.before = None if good else now
        return scalars, good, stop


def everything(loop: Loop) -> dict[str, torch.Tensor]:
    """A copy of weights, teacher, queue and optimizer."""
    optimizer = loop.optimizer.state_dict()["state"]
    tensors = {f"{n} {q}": tensor for n, values in optimizer.items() for q, tensor in values.items()}
    return {name: tensor.clone() for name, tensor in (loop.task.state_dict() | tensors).items()}


def poisoned_training(folder: Path, prepared: Config) -> None:
    with pytest.MonkeyPatch.context() as patch:
        poison = Poison(patch)
        train(prepared, folder)
    assert poison.step == ALL_STEPS - 1
    assert poison.compared == len(CHOSEN - {ALL_STEPS - 1})


def check_unpoisoned(folder: Path) -> None:
    assert all(tensor.isfinite().all() for tensor in weights(folder).values() if tensor.is_floating_point())
    logged = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    bad = [n for n, line in enumerate(logged) if not math.isfinite(line["itc"] + line["grad_norm"])]
    assert set(bad) == CHOSEN
    assert (len(logged), logged[-1]["skipped"]) == (ALL_STEPS, BAD_STEPS)


def test_steps_with_nan_or_infinity_poison_nothing(tmp_path: Path) -> None:
    poisoned_training(tmp_path, prepare(with_train(config(), steps=ALL_STEPS), tmp_path))
    check_unpoisoned(tmp_path)
    tell(f"NaN and infinity at {BAD_STEPS} of {ALL_STEPS} steps: skipped, nothing changed by any of them")


def one_of_two(rank: int, folder: Path, prepared: Config) -> None:
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    timeout = timedelta(minutes=2)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timeout
    )
    poisoned_training(folder / "run", prepared)
    dist.destroy_process_group()


def test_nan_or_infinity_in_one_of_two_processes_is_skipped_by_both(tmp_path: Path) -> None:
    prepared = prepare(with_train(config(), steps=ALL_STEPS), tmp_path / "run")
    both = [PROCESSES.Process(target=one_of_two, args=(rank, tmp_path, prepared)) for rank in (0, 1)]
    for process in both:
        process.start()
    for process in both:
        process.join(240)
    assert [process.exitcode for process in both] == [0, 0]
    check_unpoisoned(tmp_path / "run")
    tell(
        f"NaN and infinity at {BAD_STEPS} of {ALL_STEPS} steps in one of two processes: skipped by both alike"
    )
