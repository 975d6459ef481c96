"""Weights to start from: what fits is taken, positions are resized, the teacher follows, misfits are told."""

import dataclasses
from pathlib import Path

import pytest
import torch

import toy
from albef.config import UserError
from albef.data.text import Tokenizer
from albef.manifest import Damaged
from albef.model.albef import ALBEF
from albef.model_directory import save_model
from albef.tasks.pretrain import Pretrain
from albef.train.initial import start_from


def saved(folder: Path, heads: tuple[str, ...] = ("contrast", "itm", "mlm")) -> tuple[str, ALBEF]:
    model = ALBEF(toy.MODEL, heads)
    save_model(folder, model, Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY), "")
    return str(folder), model


def test_student_and_teacher_start_as_the_model(tmp_path: Path) -> None:
    source, model = saved(tmp_path / "model", ("contrast", "itm"))
    task = Pretrain(toy.config())
    before = task.student.mlm_head.bias.clone()
    started = start_from(task, source)
    for name, tensor in model.state_dict().items():
        assert torch.equal(task.student.state_dict()[name], tensor), name
    for name, tensor in task.student.state_dict().items():
        assert torch.equal(task.teacher.module.state_dict()[name], tensor), name
    assert torch.equal(task.student.mlm_head.bias, before)
    assert {name.split(".")[0] for name in started.random} == {"mlm_head"}
    assert started.ignored == []


def test_positions_fit_the_pictures(tmp_path: Path) -> None:
    source, _ = saved(tmp_path / "model")
    config = dataclasses.replace(toy.config(), model=dataclasses.replace(toy.MODEL, image_size=32))
    task = Pretrain(config)
    start_from(task, source)
    assert task.student.image_encoder.positions.shape == (1, 1 + 16, 16)


def test_other_widths_are_refused_with_the_first_three(tmp_path: Path) -> None:
    source, _ = saved(tmp_path / "model")
    config = dataclasses.replace(toy.config(), model=dataclasses.replace(toy.MODEL, text_mlp_width=64))
    with pytest.raises(
        UserError, match=r"\[32, 16\] instead of \[64, 16\].*--model.text_mlp_width=32"
    ) as error:
        start_from(Pretrain(config), source)
    assert str(error.value).count("instead of") == 3


def test_damaged_weights_are_never_trained_on(tmp_path: Path) -> None:
    source, _ = saved(tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    task = Pretrain(toy.config())
    with pytest.raises(Damaged, match=r"content of model\.safetensors"):
        start_from(task, source)
    (tmp_path / "model" / "manifest.json").unlink()
    file.write_bytes(content[:-5])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        start_from(task, source)
