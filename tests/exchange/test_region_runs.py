"""A run of a system on regions goes out as its published scripts read it, and its model comes back."""

from pathlib import Path

import pytest
import torch

import toy_regions
from albef.config import TaskName
from albef.exchange.choices import Choices
from albef.exchange.exporting import export_official, export_to
from albef.exchange.importing import import_checkpoint
from albef.model_config import SystemName
from albef.model_directory import read_config, read_tensors
from albef.run import run
from toy_regions import SYSTEM_NAMES

TASKS: tuple[TaskName, ...] = ("pretrain", "vqa")  # of the others, the files' tests say that they come back


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("system", SYSTEM_NAMES)
def test_a_run_goes_out_and_comes_back(system: SystemName, task: TaskName, tmp_path: Path) -> None:
    config = toy_regions.config(system, task, toy_regions.write_data(tmp_path / "data", task))
    run(config, tmp_path / "run", report=False)
    model, published = tmp_path / "run" / "model", tmp_path / "published"
    if system == "oscar":
        export_to(str(tmp_path / "run"), "pytorch-transformers", published)
    else:
        export_official(str(tmp_path / "run"), published)
    own = read_config(model / "config.json")
    choices = Choices(heads=(own[0].text_heads,), tokenizer=model / "tokenizer.json")
    import_checkpoint(published, tmp_path / "back", choices)
    assert read_config(tmp_path / "back" / "config.json")[1] == own[1]
    first, back = (read_tensors(folder / "model.safetensors") for folder in (model, tmp_path / "back"))
    assert first.keys() == back.keys()
    assert all(torch.equal(first[name], back[name]) for name in first)
