"""Training from end to end on toys: exact resume, faults, two processes."""

import dataclasses
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file

import toy
from albef import distributed
from albef.config import Config, DataConfig, TaskConfig, TrainConfig, UserError
from albef.run import prepare, run
from albef.tasks.pretrain import Pretrain
from albef.train import loop as loop_module
from albef.train.checkpoint import checkpoints_in
from albef.train.loop import run_child, train
from albef.train.steps import MAX_SKIPPED_IN_A_ROW
from albef.train.stopping import Interrupted


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for one another are slow where other tests run beside them."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distributed, "cores", lambda: 1)
        yield
    torch.set_num_threads(threads)


def trained(config: Config, folder: Path) -> dict[str, torch.Tensor]:
    """The last checkpoint's tensors after training in a folder."""
    train(prepare(config, folder), folder)
    return load_file(checkpoints_in(folder / "checkpoints")[-1] / "task.safetensors")


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses_of(folder: Path) -> list[tuple[float, ...]]:
    return [tuple(line[name] for name in ("step", "itc", "itm", "mlm")) for line in log_of(folder)]


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_what_the_data_lack_is_said_and_listed_and_the_rest_is_learnt_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = []
    for number, key in enumerate(["answer", "answr", "answer", "answer"]):
        noise = np.random.default_rng(number).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "question": "what is it", key: "a fox"})
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    data = DataConfig(source=str(tmp_path / "rows.json"), crop_scale=(1.0, 1.0), randaugment=False)
    settings = TrainConfig(
        steps=2, batch_size=2, warmup_steps=1, precision="fp32", attention="fused", linear="torch"
    )
    config = toy.config(TaskConfig(name="vqa", queue_size=0), settings, data)
    trained(config, tmp_path / "run")
    said = " ".join(capsys.readouterr().out.split())
    assert "3 training records" in said
    assert '1 of 4 questions have no "answer" (found "answr") and are left out.' in said
    listed = (tmp_path / "run" / "bad_samples.jsonl").read_text()
    assert json.loads(listed) == {"origin": "rows.json, row 2", "reason": 'there is no "answer"'}


def test_a_run_writes_its_log_and_learns_something(tmp_path: Path) -> None:
    settings = TrainConfig(
        steps=40, batch_size=8, warmup_steps=3, lr=1e-2, precision="fp32", log_every_steps=1
    )
    trained(toy.config(train=settings), tmp_path)
    log = log_of(tmp_path)
    assert [line["step"] for line in log] == list(range(40))
    assert sum(line["mlm"] for line in log[-5:]) < sum(line["mlm"] for line in log[:5]) - 1
    for name in (
        "mi_i2t",
        "mi_t2i",
        "mi_mlm",
        "disagreement",
        "itm_accuracy",
        "pairs_per_second",
        "lr",
        "grad_norm",
    ):
        assert name in log[-1]


@pytest.mark.parametrize(
    ("number", "exit_code", "optimizer"),
    [(signal.SIGINT, 130, "adamw"), (signal.SIGTERM, 143, "muon"), (signal.SIGHUP, 129, "adamw")],
)
def test_an_interrupted_run_goes_on_bit_for_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, exit_code: int, optimizer: str
) -> None:
    config = toy.config()
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, optimizer=optimizer))
    undisturbed = trained(config, tmp_path / "whole")
    send = [None, None, None, number]
    advance = loop_module.RunLog.advance

    def advance_and_interrupt(self: loop_module.RunLog, step: int) -> None:
        advance(self, step)
        if step < len(send) and send[step]:
            os.kill(os.getpid(), send[step])

    monkeypatch.setattr(loop_module.RunLog, "advance", advance_and_interrupt)
    with pytest.raises(Interrupted, match=r"after step .* the checkpoint is saved") as stopped:
        trained(config, tmp_path / "broken")
    assert stopped.value.exit_code == exit_code
    assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGHUP) == signal.SIG_DFL
    stopped_after = int(checkpoints_in(tmp_path / "broken" / "checkpoints")[-1].name.split("-")[1])
    assert 4 <= stopped_after < config.train.steps
    monkeypatch.undo()
    resumed = trained(config, tmp_path / "broken")
    assert equal(undisturbed, resumed)
    assert losses_of(tmp_path / "whole") == losses_of(tmp_path / "broken")


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    first = trained(toy.config(), tmp_path)
    log = (tmp_path / "log.jsonl").read_text()
    assert equal(trained(toy.config(), tmp_path), first)
    assert (tmp_path / "log.jsonl").read_text() == log


def test_data_workers_change_nothing(tmp_path: Path) -> None:
    alone = trained(toy.config(), tmp_path / "0")
    data = dataclasses.replace(toy.config().data, workers=1)
    assert equal(trained(toy.config(data=data), tmp_path / "1"), alone)


def poisoned(monkeypatch: pytest.MonkeyPatch, steps: set[int]) -> None:
    """Makes the loss NaN in the given calls of the task."""
    forward, calls = Pretrain.forward, iter(range(10**6))

    def forward_with_nan(self: Pretrain, *arguments: object) -> object:
        output = forward(self, *arguments)
        if next(calls) in steps:
            output.losses["itc"] = output.losses["itc"] * float("nan")
        return output

    monkeypatch.setattr(Pretrain, "forward", forward_with_nan)


def test_a_step_with_nan_is_skipped_and_poisons_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, {2, 4})
    tensors = trained(toy.config(), tmp_path)
    assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())
    assert log_of(tmp_path)[-1]["skipped"] == 2


def test_nan_without_end_stops_the_run_with_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poisoned(monkeypatch, set(range(3, 1000)))
    settings = TrainConfig(steps=100, batch_size=4, precision="fp32", checkpoint_every_steps=1)
    with pytest.raises(UserError, match=f"{MAX_SKIPPED_IN_A_ROW} times in a row"):
        trained(toy.config(train=settings), tmp_path)
    newest = checkpoints_in(tmp_path / "checkpoints")[-1]
    assert newest.name == "step-00000003"
    tensors = load_file(newest / "task.safetensors")
    assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())


def test_two_processes_train_and_resume(tmp_path: Path) -> None:
    settings = TrainConfig(
        steps=4,
        batch_size=4,
        precision="fp32",
        processes=2,
        threads=1,
        log_every_steps=1,
        checkpoint_every_steps=2,
    )
    task = TaskConfig(queue_size=10, align_first=0.5)
    config = toy.config(task=task, train=settings)
    whole = trained(config, tmp_path)
    assert [line["step"] for line in log_of(tmp_path)] == [0, 1, 2, 3]
    assert int(whole["queue.count"]) == 10
    last = checkpoints_in(tmp_path / "checkpoints")[-1]
    for file in last.iterdir():
        file.unlink()
    last.rmdir()
    assert equal(trained(config, tmp_path), whole)


def test_what_stops_one_of_two_processes_reaches_the_user(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(8):
        (pictures / f"{number}.png").write_bytes(b"<html>no picture</html>")
        (pictures / f"{number}.txt").write_text("a fox")
    data = dataclasses.replace(toy.config().data, source=str(pictures))
    settings = TrainConfig(steps=4, batch_size=4, precision="fp32", processes=2, threads=1)
    with pytest.raises(UserError, match=r"cannot be used, more than data\.max_bad_fraction"):
        trained(toy.config(data=data, train=settings), tmp_path / "run")


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_process_that_writes_says_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    def interrupted(config: Config, run: Path, answers: tuple[str, ...]) -> None:
        raise Interrupted("the checkpoint is saved")

    monkeypatch.setattr(loop_module, "train_process", interrupted)
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    errors: SimpleQueue[tuple[str, str]] = SimpleQueue()
    run_child(rank, toy.config(), tmp_path, (), str(tmp_path), errors)
    assert errors.empty() == (rank == 1)


def test_ctrl_c_while_processes_are_starting_reaches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = loop_module.start_processes

    def start_and_signal(*given: object, **settings: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        return start(*given, **settings)

    monkeypatch.setattr(loop_module, "start_processes", start_and_signal)
    settings = TrainConfig(steps=10**6, batch_size=4, precision="fp32", processes=2, threads=1)
    before = {
        one: signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
    }
    with pytest.raises(Interrupted, match="Stopped at once") as stopped:
        train(toy.config(train=settings), tmp_path)
    assert stopped.value.exit_code == 130
    assert {one: signal.getsignal(one) for one in before} == before
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_a_training_in_another_thread_is_refused_at_once(tmp_path: Path) -> None:
    for what in (train, run):
        with ThreadPoolExecutor() as pool, pytest.raises(UserError, match="in the main thread"):
            pool.submit(what, toy.config(), tmp_path / "run").result()
    assert not (tmp_path / "run").exists()


def signalled(monkeypatch: pytest.MonkeyPatch, numbers: dict[int, signal.Signals]) -> None:
    """Sends these signals after these steps."""
    advance = loop_module.RunLog.advance

    def advance_and_signal(self: loop_module.RunLog, step: int) -> None:
        advance(self, step)
        if step in numbers:
            os.kill(os.getpid(), numbers[step])

    monkeypatch.setattr(loop_module.RunLog, "advance", advance_and_signal)


def test_a_signal_to_save_saves_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = dataclasses.replace(toy.config().train, keep_checkpoints=9)
    undisturbed = trained(toy.config(train=settings), tmp_path / "whole")
    signalled(monkeypatch, {2: signal.SIGUSR1})
    assert equal(trained(toy.config(train=settings), tmp_path / "saved"), undisturbed)
    found = [path.name for path in checkpoints_in(tmp_path / "saved" / "checkpoints")]
    assert found == ["step-00000004", "step-00000006"]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_signals_that_are_ignored_stay_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    before = signal.signal(number, signal.SIG_IGN)  # as under nohup
    try:
        signalled(monkeypatch, {1: number})
        trained(toy.config(), tmp_path)
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)
    assert len(checkpoints_in(tmp_path / "checkpoints")) == 1


def test_batches_must_be_divisible_among_processes(tmp_path: Path) -> None:
    config = toy.config(train=TrainConfig(batch_size=5, processes=2))
    with pytest.raises(UserError, match=r"train\.batch_size 5"):
        train(config, tmp_path)


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_three_pairs_train(tmp_path: Path, batch_size: int) -> None:
    import numpy as np
    from PIL import Image

    for number, caption in enumerate(["a", "fox", "fox"]):
        Image.fromarray(np.full((20, 30, 3), 60 * number, np.uint8)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").write_text(caption)
    data = dataclasses.replace(toy.config().data, source=str(tmp_path))
    settings = TrainConfig(steps=5, batch_size=batch_size, precision="fp32", log_every_steps=1)
    config = toy.config(task=TaskConfig(queue_size=1000), train=settings, data=data)
    tensors = trained(config, tmp_path.parent / f"run-{batch_size}")
    assert all(tensor.isfinite().all() for tensor in tensors.values() if tensor.is_floating_point())
    assert log_of(tmp_path.parent / f"run-{batch_size}")[-1]["skipped"] == 0
