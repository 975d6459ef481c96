"""What surrounds the training breaks, or its own numbers do: it goes on as if nothing had happened."""

import random
import time
from pathlib import Path

import pytest
import torch
from faulty import assert_same_run, config, losses, start, tell, weights, with_train

from albef.run import prepare
from albef.tasks.pretrain import Pretrain
from albef.train.logging import RunLog
from albef.train.loop import Loop, train


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
    assert " ".join(capsys.readouterr().out.split()).count("Training goes on without its log") == 1
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


def test_steps_with_nan_or_infinity_poison_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 60
    chosen = set(random.Random(0).sample(range(steps), 20))
    state = {"step": -1, "before": None, "compared": 0}
    forward, everywhere = Pretrain.forward, Loop.everywhere

    def poisoned(self: Pretrain, *arguments: object) -> object:
        output = forward(self, *arguments)
        state["step"] += 1
        if state["step"] in chosen:
            kind, what = KINDS[state["step"] % 4].split()
            if kind == "loss":
                output.losses["itc"] = output.losses["itc"] * float(what)
            else:
                output.losses["itc"].register_hook(lambda gradient: gradient * float(what))
        return output

    def everything(loop: Loop) -> dict[str, torch.Tensor]:
        optimizer = loop.optimizer.state_dict()["state"]
        tensors = {f"{n} {q}": tensor for n, values in optimizer.items() for q, tensor in values.items()}
        return {name: tensor.clone() for name, tensor in (loop.task.state_dict() | tensors).items()}

    def watched(self: Loop, *arguments: object) -> object:
        now = everything(self)
        if state["before"] is not None:  # the step before was a bad one
            assert now.keys() == state["before"].keys()
            assert all(torch.equal(now[name], state["before"][name]) for name in now)
            state["compared"] += 1
        found = everywhere(self, *arguments)
        *_, good, _ = found  # whether the step is good, and whether it is to be the last
        assert good == (state["step"] not in chosen)
        state["before"] = None if good else now
        return found

    monkeypatch.setattr(Pretrain, "forward", poisoned)
    monkeypatch.setattr(Loop, "everywhere", watched)
    train(prepare(with_train(config(), steps=steps), tmp_path), tmp_path)
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values() if tensor.is_floating_point())
    assert len(losses(tmp_path)) == steps
    assert state["compared"] == len(chosen - {steps - 1})
    tell(f"NaN and infinity at {len(chosen)} of {steps} steps: skipped, nothing changed by any of them")
