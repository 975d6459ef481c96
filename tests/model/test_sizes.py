"""Parameters and published names, on the meta device."""

import json
from pathlib import Path

import pytest
import torch

from albef.config import SIZES, ModelConfig, UserError
from albef.info import build_on_meta, published_state
from albef.model import checkpoints
from albef.model.albef import ALBEF

NAMES = Path(__file__).parent.parent / "golden" / "official-pretrain-names.json"


def test_base_is_the_published_model() -> None:
    task = build_on_meta(SIZES["base"])
    state = published_state(task)
    assert {name: list(tensor.shape) for name, tensor in state.items()} == json.loads(NAMES.read_text())
    assert len(state) == 844
    assert sum(parameter.numel() for parameter in task.student.parameters()) == 209_937_725
    image = sum(parameter.numel() for parameter in task.student.image_encoder.parameters())
    assert image == 85_844_736


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_published_names_there_and_back(size: str) -> None:
    config = SIZES[size]
    with torch.device("meta"):
        model = ALBEF(config)
    there = checkpoints.to_published(model, config)
    back = checkpoints.from_published(there, model.state_dict(), config)
    assert {name: tensor.shape for name, tensor in back.items()} == {
        name: tensor.shape for name, tensor in model.state_dict().items()
    }


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match=r"not divisible by model\.patch_size"):
        ModelConfig(image_size=50, patch_size=16)
    with pytest.raises(UserError, match="heads"):
        ModelConfig(text_width=100, text_heads=12)
