"""What `albef info` says of a size, and of a model of any task."""

import math
from pathlib import Path

import pytest
from safetensors import safe_open

import toy
from albef.cli.info import model_facts
from albef.config import TaskName
from albef.model_directory import WEIGHTS_FILE, save_model
from albef.systems import build_task


@pytest.mark.parametrize("task", ["pretrain", "retrieval", "vqa", "entailment", "nlvr", "text_assignment"])
def test_parameters_are_those_of_the_model_and_no_others(tmp_path: Path, task: TaskName) -> None:
    model = build_task(toy.config(task=toy.TaskConfig(name=task))).student
    save_model(tmp_path / "model", model, toy.engine().tokenizer, "")
    facts = model_facts(str(tmp_path / "model"))
    with safe_open(tmp_path / "model" / WEIGHTS_FILE, "pt") as file:
        stored = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert facts["heads"] == ", ".join(model.heads)
    assert facts["trainable_parameters"] == sum(map(math.prod, stored.values()))


def test_of_a_size_the_whole_pre_training_counts() -> None:
    facts = model_facts("base")
    assert facts["trainable_parameters"] == 209_937_725
    assert facts["state_dict_keys"] > 700
