"""The systems that see regions: trained, resumed, exported, measured and reported on own data."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import toy_regions
from albef.config import Config, TaskName
from albef.model_config import SystemName
from albef.model_directory import read_config
from albef.run import prepare, run
from albef.systems import SYSTEMS
from albef.train.checkpoint import checkpoints_in
from albef.train.logging import LOSSES
from albef.train.loop import train
from toy_regions import SYSTEM_NAMES

TASKS = [(system, task) for system in SYSTEM_NAMES for task in SYSTEMS[system].tasks]


@pytest.mark.parametrize(("system", "task"), TASKS)
def test_every_task_is_trained_and_measured(system: SystemName, task: TaskName, tmp_path: Path) -> None:
    config = toy_regions.config(system, task, toy_regions.write_data(tmp_path / "data", task))
    run(config, tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    figure = "data/itm/t2i_r1" if task in ("pretrain", "retrieval") else "data/accuracy"
    assert 0 <= metrics[figure] <= 1
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [value for row in log for name, value in row.items() if name in LOSSES]
    assert losses
    assert np.isfinite(losses).all()
    report = (tmp_path / "run" / "report.html").read_text()
    assert "This run was not evaluated" not in report
    assert "Before the vertical dashed line" not in report
    assert "numbers describe a region" in report


@pytest.mark.parametrize("nameless", [3, 8])
def test_images_whose_objects_the_detector_could_not_name_are_learned_from(
    nameless: int, tmp_path: Path
) -> None:
    """Of all images, and of some."""
    config = toy_regions.config("oscar", "pretrain", toy_regions.write_data(tmp_path / "data", "pretrain"))
    for number in range(nameless):
        arrays = {**toy_regions.regions(number, 2), "tags": np.array([], "<U1")}
        np.savez(tmp_path / "data" / f"{number}.npz", **arrays)
    run(config, tmp_path / "run", report=False)
    assert not (tmp_path / "run" / "bad_samples.jsonl").exists()
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["data/pictures"] == 8


@pytest.mark.parametrize("system", SYSTEM_NAMES)
def test_a_run_that_lost_its_last_checkpoint_ends_bit_for_bit_as_before(
    system: SystemName, tmp_path: Path
) -> None:
    config = toy_regions.config(system, "pretrain", toy_regions.write_data(tmp_path / "data", "pretrain"), 4)
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, checkpoint_every_steps=2))
    whole = trained(config, tmp_path / "run")
    shutil.rmtree(checkpoints_in(tmp_path / "run" / "checkpoints")[-1])
    again = trained(config, tmp_path / "run")
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.parametrize("listed", [True, False])
def test_questions_resume_with_the_answers_of_their_data(listed: bool, tmp_path: Path) -> None:
    """How many they are is no setting that changed."""
    config = toy_regions.config("oscar", "vqa", toy_regions.write_data(tmp_path / "data", "vqa"), 4)
    train_settings = dataclasses.replace(config.train, checkpoint_every_steps=2)
    data = config.data
    if listed:
        (tmp_path / "answers.json").write_text(json.dumps(["fox", *map(str, range(20))]))
        data = dataclasses.replace(data, answer_list=str(tmp_path / "answers.json"))
    config = dataclasses.replace(config, train=train_settings, data=data)
    run(config, tmp_path / "run", report=False)
    shutil.rmtree(checkpoints_in(tmp_path / "run" / "checkpoints")[-1])
    run(config, tmp_path / "run", report=False)
    assert not (tmp_path / "run" / "changes.jsonl").exists()
    if listed:  # a run with other answers starts from it
        (tmp_path / "answers.json").write_text(json.dumps(["fox", "3", "none of them"]))
        train_settings = dataclasses.replace(train_settings, init=str(tmp_path / "run"))
        run(dataclasses.replace(config, train=train_settings), tmp_path / "other", report=False)
        model, _ = read_config(tmp_path / "other" / "model" / "config.json")
        assert model.num_answers == 3


def trained(config: Config, folder: Path) -> dict[str, torch.Tensor]:
    """The last checkpoint's tensors after training in a folder."""
    train(prepare(config, folder), folder)
    return load_file(checkpoints_in(folder / "checkpoints")[-1] / "task.safetensors")


def test_two_processes_train_as_one_with_two_parts_of_a_batch(tmp_path: Path) -> None:
    config = toy_regions.config(
        "lxmert", "pretrain", toy_regions.write_data(tmp_path / "data", "pretrain"), 3
    )
    # Dropout depends on how far a slice is padded, and these images have different numbers of regions.
    model = dataclasses.replace(config.model, dropout=0.0)
    alone = dataclasses.replace(config.train, micro_batch_size=2, threads=1)
    two = dataclasses.replace(config.train, processes=2, threads=1)
    found = [
        trained(dataclasses.replace(config, model=model, train=train), tmp_path / str(train.processes))
        for train in (alone, two)
    ]
    for name, tensor in found[0].items():
        torch.testing.assert_close(found[1][name], tensor, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("task", "figure", "said"),
    [("retrieval", "data/pictures", "no images to show"), ("vqa", "data/count", "what is beside the fox?")],
)
def test_regions_are_enough_if_there_are_no_images(
    task: TaskName, figure: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = toy_regions.write_data(tmp_path / "data", task)
    for image in (tmp_path / "data").glob("*.png"):
        image.unlink()
    config = toy_regions.config("uniter", task, data)
    named = dataclasses.replace(config, data=dataclasses.replace(config.data, regions=str(data.parent)))
    run(named, tmp_path / "run")
    assert "is not there" not in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())[figure] == 8
    assert said in (tmp_path / "run" / "report.html").read_text()
