"""Parameters and published names, on the meta device."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from albef.cli.info import build_on_meta, published_state
from albef.config import SIZES, ModelConfig, TaskName, UserError
from albef.model import checkpoints
from albef.model.albef import ALBEF

NAMES = json.loads((Path(__file__).parent.parent / "golden" / "official-names.json").read_text())
# Parameters of the student; of the others the names and shapes decide.
PUBLISHED = {
    "pretrain": "pretrain",
    "retrieval": "retrieval/grounding",
    "grounding": "retrieval/grounding",
    "vqa": "vqa",
    "entailment": "ve",
    "nlvr": "nlvr",
    "text_assignment": "pretrain_nlvr",
}


@pytest.mark.parametrize("task_name", PUBLISHED)
def test_base_is_the_published_model_of_every_task(task_name: TaskName) -> None:
    # Fine-tuned models have pictures of 384 pixels, text assignment those of pre-training.
    expected = NAMES[PUBLISHED[task_name]]
    grid = round((expected["visual_encoder.pos_embed"][1] - 1) ** 0.5)
    config = dataclasses.replace(SIZES["base"], image_size=16 * grid)
    state = published_state(build_on_meta(config, task_name))
    assert {name: list(tensor.shape) for name, tensor in state.items()} == expected


def test_base_has_the_published_number_of_parameters() -> None:
    task = build_on_meta(SIZES["base"])
    assert sum(parameter.numel() for parameter in task.student.parameters()) == 209_937_725
    image = sum(parameter.numel() for parameter in task.student.image_encoder.parameters())
    assert image == 85_844_736


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_published_names_there_and_back(size: str) -> None:
    config = SIZES[size]
    with torch.device("meta"):
        model = ALBEF(config)
    there = checkpoints.to_published(model.state_dict(), config)
    back = checkpoints.from_published(there, model.state_dict(), config)
    assert {name: tensor.shape for name, tensor in back.items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match=r"not divisible by model\.patch_size"):
        ModelConfig(image_size=50, patch_size=16)
    with pytest.raises(UserError, match="heads"):
        ModelConfig(text_width=100, text_heads=12)
