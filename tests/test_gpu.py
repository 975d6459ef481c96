"""What is decided for GPUs is decided without one: torch is made to say that there are some."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import toy
from albef import distributed, gpu
from albef.cli.doctor import of_gpus
from albef.config import TrainConfig, UserError
from albef.run import prepare
from albef.train import loop
from albef.train.loop import train
from albef.train.steps import Loop


def with_gpus(monkeypatch: pytest.MonkeyPatch, *capabilities: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(capabilities))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
    monkeypatch.setattr(
        torch.cuda,
        "get_device_properties",
        lambda number: SimpleNamespace(
            name=f"Card {number}", total_memory=24 * 2**30, major=capabilities[number]
        ),
    )


def test_gpus_have_a_name_memory_and_bf16_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with_gpus(monkeypatch, 9, 7)
    assert gpu.gpus() == [("Card 0", 24 * 2**30, True), ("Card 1", 24 * 2**30, False)]
    with_gpus(monkeypatch)
    assert gpu.gpus() == []


@pytest.mark.parametrize(
    ("device", "cards", "expected"),
    [("auto", 0, 2), ("cpu", 1, 2), ("auto", 1, 1), ("auto", 2, 1), ("cuda", 1, 1), ("cuda:1", 2, 1)],
)
def test_processes_of_a_recipe_are_for_cpus(
    monkeypatch: pytest.MonkeyPatch, device: str, cards: int, expected: int
) -> None:
    with_gpus(monkeypatch, *[9] * cards)
    assert gpu.processes(TrainConfig(processes=2, device=device)) == expected


@pytest.mark.parametrize(
    ("device", "rank", "processes", "expected"),
    [("auto", 1, 2, 1), ("cuda", 0, 2, 0), ("cuda:1", 0, 1, 1), ("cpu", 1, 4, None)],
)
def test_each_process_of_torchrun_has_a_gpu_of_its_own(
    monkeypatch: pytest.MonkeyPatch, device: str, rank: int, processes: int, expected: int | None
) -> None:
    with_gpus(monkeypatch, 9, 9)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert gpu.own_gpu(device) == expected


@pytest.mark.parametrize("rank", [0, 3])  # all of them refuse: none is to wait for the others
@pytest.mark.parametrize(
    ("device", "processes", "message"),
    [
        ("auto", 4, r"started 4 processes .* has 2 GPUs.* --nproc-per-node=2"),
        ("cuda:1", 2, r"cuda:1 would be shared by the 2 processes"),
    ],
)
def test_two_processes_are_never_put_on_one_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, processes: int, message: str, rank: int
) -> None:
    with_gpus(monkeypatch, 9, 9)
    for name, value in {"RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": processes}.items():
        monkeypatch.setenv(name, str(value))
    with pytest.raises(UserError, match=message), distributed.group(10, device):
        pass


def test_a_full_gpu_is_told_with_the_remedy() -> None:
    with (
        pytest.raises(UserError, match="memory of the GPU is full: take less"),
        gpu.full_memory_told("take less"),
    ):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    with pytest.raises(RuntimeError, match="another error"), gpu.full_memory_told("take less"):
        raise RuntimeError("another error")


def test_the_remedy_names_what_is_left_to_set() -> None:
    train = TrainConfig()
    said = gpu.remedy_in_training(train, 64)
    assert "train.micro_batch_size to 32" in said
    assert "train.checkpointing to [image, text, fusion]" in said
    said = gpu.remedy_in_training(
        dataclasses.replace(train, micro_batch_size=16, checkpointing=("text",)), 64
    )
    assert "train.micro_batch_size to 8" in said
    assert "train.checkpointing to [text, image, fusion]" in said
    least = dataclasses.replace(train, micro_batch_size=1, checkpointing=("image", "text", "fusion"))
    assert "smaller model.size" in gpu.remedy_in_training(least, 64)


def test_doctor_knows_gpus() -> None:
    two = [gpu.GPU("Old", 8 * 10**9, False), gpu.GPU("New", 80 * 10**9, True)]
    (first, second) = of_gpus(two)
    assert first[:2] == ("GPU 0", "Old, 8.0 GB, fp32")
    assert "no bf16" in first[2]
    assert "torchrun --nproc-per-node=2" in first[2]
    assert second == ("GPU 1", "New, 80.0 GB, bf16", "")
    assert list(of_gpus([])) == [("device", "CPU", "")]


def test_a_step_without_room_names_the_settings_that_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*given: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    config = toy.config()
    prepared = prepare(config, tmp_path / "run")
    monkeypatch.setattr(Loop, "backward", full)
    with pytest.raises(
        UserError, match=r"full: set train\.micro_batch_size to 2.*train\.checkpointing to \[image"
    ):
        train(prepared, tmp_path / "run")
    monkeypatch.setattr(loop, "build_task", full)
    with pytest.raises(UserError, match=r"no room for the weights.*train\.shard"):
        train(prepared, tmp_path / "run")
