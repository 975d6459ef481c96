"""Published names out: import and export are inverse both ways, for all six; runs with their teacher and queue."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import toy
from albef.config import Config, TaskConfig, UserError
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.exchange.exporting import export_official
from albef.exchange.importing import Choices, import_checkpoint
from albef.exchange.structure import STRUCTURES, Structure
from albef.model.albef import ALBEF
from albef.model_directory import save_model
from albef.recipe import dump_config
from albef.systems import build_task
from albef.tasks.base import Task
from albef.train.checkpoint import CheckpointWriter
from toy_published import NAMES, toy_state

BY_NAME = pytest.mark.parametrize("structure", STRUCTURES, ids=lambda structure: structure.name)


@pytest.fixture
def choices(tmp_path: Path) -> Choices:
    Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY).save(tmp_path / "tokenizer.json", toy.MODEL)
    return Choices(heads=(2,), tokenizer=tmp_path / "tokenizer.json")


def exported(source: Path, file: Path) -> dict[str, torch.Tensor]:
    export_official(str(source), file)
    return torch.load(file, weights_only=True)["model"]


@pytest.mark.parametrize("name", NAMES)
def test_in_and_out_is_the_identity_on_published_tensors(tmp_path: Path, choices: Choices, name: str) -> None:
    state = toy_state(name)
    torch.save({"model": state, "epoch": 29}, tmp_path / "in.pth")
    import_checkpoint(tmp_path / "in.pth", tmp_path / "model", choices)
    out = exported(tmp_path / "model", tmp_path / "out.pth")
    assert set(out) == set(state)
    for key, tensor in state.items():
        assert (out[key].dtype, out[key].shape) == (tensor.dtype, tensor.shape), key
        assert torch.equal(out[key], tensor), key


@BY_NAME
def test_out_and_in_is_the_identity_on_a_run(tmp_path: Path, structure: Structure) -> None:
    """Also of the settings that no tensor tells."""
    model = dataclasses.replace(toy.MODEL, append_sep=True, max_tokens=17, fuse_placed_patches=True)
    config = dataclasses.replace(
        toy.config(task=TaskConfig(name=structure.task, queue_size=10, random_queue=True)), model=model
    )
    task = a_run(config, tmp_path / "run")
    exported(tmp_path / "run", tmp_path / "out.pth")
    tokenizer = tmp_path / "run" / "tokenizer.json"
    Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY).save(tokenizer, model)
    import_checkpoint(tmp_path / "out.pth", tmp_path / "model", Choices(tokenizer=tokenizer))
    engine = Engine.load(tmp_path / "model")
    feature_width = model.feature_width if "contrast" in structure.heads else 256  # nothing has it
    expected = dataclasses.replace(model, size="base", initial_std=0.02, feature_width=feature_width)
    assert engine.config == expected
    for name, tensor in task.student.state_dict().items():
        assert torch.equal(engine.model.state_dict()[name], tensor), name
    if structure.has_teacher:
        teacher = load_file(tmp_path / "model" / "teacher.safetensors")
        own = task.teacher.module.state_dict()
        assert all(torch.equal(own[name], tensor) for name, tensor in teacher.items())
        assert {name.partition(".")[0] for name in set(own) - set(teacher)} <= {"itm_head", "temperature"}
    if structure.has_queue:
        queue = load_file(tmp_path / "model" / "queue.safetensors")
        for name in ("image", "text", "pointer"):
            assert torch.equal(queue[name], getattr(task.queue, name)), name


def a_run(config: Config, folder: Path) -> Task:
    """A run's folder as training leaves it, with a teacher and a queue of their own."""
    torch.manual_seed(0)
    task = build_task(config)
    if task.teacher is not None:
        with torch.no_grad():
            for parameter in task.teacher.module.parameters():
                parameter.add_(0.5)
    with CheckpointWriter(folder / "checkpoints", {}, keep=1) as writer:
        writer.save(6, task.state_dict(), {}, {})
    (folder / "config.yaml").write_text(dump_config(config))
    return task


@BY_NAME
def test_without_a_teacher_it_is_the_student_and_takes_no_room(tmp_path: Path, structure: Structure) -> None:
    model = ALBEF(toy.MODEL, structure.heads)
    save_model(tmp_path / "model", model, Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY), "")
    state = exported(tmp_path / "model", tmp_path / "out.pth")
    official = {name.split(".")[0] for name in NAMES[structure.name]}
    assert {name.split(".")[0] for name in state} == official
    copies = {name for name in state if name.partition(".")[0].endswith("_m")}
    assert bool(copies) is structure.has_teacher
    for name in copies:
        component, _, rest = name.partition(".")
        student = state[f"{component.removesuffix('_m')}.{rest}"]
        assert torch.equal(state[name], student)
        assert state[name].data_ptr() == student.data_ptr() or name.endswith("position_ids")
    if structure.has_queue:  # nothing that would be a negative of length zero
        assert state["image_queue"].shape == (toy.MODEL.feature_width, 65_536)
        torch.testing.assert_close(state["text_queue"].norm(dim=0), torch.ones(65_536))


def test_places_that_hold_nothing_are_filled(tmp_path: Path) -> None:
    config = toy.config(task=TaskConfig(name="retrieval", queue_size=10))
    task = build_task(config)
    features = torch.nn.functional.normalize(torch.randn(4, toy.MODEL.feature_width), dim=1)
    folder = tmp_path / "run"
    for name, rows in (("image", features), ("text", features), ("image_id", torch.arange(4))):
        getattr(task.queue, name)[:4] = rows
    task.queue.count.fill_(4)
    with CheckpointWriter(folder / "checkpoints", {}, keep=1) as writer:
        writer.save(1, task.state_dict(), {}, {})
    (folder / "config.yaml").write_text(dump_config(config))
    state = exported(folder, tmp_path / "out.pth")
    assert torch.equal(state["image_queue"][:, :4], features.T)
    torch.testing.assert_close(state["image_queue"].norm(dim=0), torch.ones(10))
    assert state["idx_queue"].tolist() == [[0, 1, 2, 3] + [-100] * 6]


def test_what_no_published_model_is_cannot_be_written_as_one(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY)
    save_model(tmp_path / "model", ALBEF(toy.MODEL, ("contrast",)), tokenizer, "")
    with pytest.raises(UserError, match="was trained for contrast, but no published model has these heads"):
        export_official(str(tmp_path / "model"), tmp_path / "out.pth")
    assert not (tmp_path / "out.pth").exists()
    with pytest.raises(UserError, match="no such folder"):
        export_official(str(tmp_path / "absent" / "model"), tmp_path / "out.pth")


def test_what_the_published_code_would_compute_otherwise_is_said(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY)
    for name, placed in (("as published", False), ("another way", True)):
        config = dataclasses.replace(toy.MODEL, fuse_placed_patches=placed)
        save_model(tmp_path / name, ALBEF(config), tokenizer, "")
        _, rows = export_official(str(tmp_path / name), tmp_path / f"{name}.pth")
        assert any("its scores will differ" in row.why for row in rows) is placed


def test_a_damaged_checkpoint_is_passed_over_as_in_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    task = a_run(toy.config(), run)
    with CheckpointWriter(run / "checkpoints", {}, keep=2, first_step=6) as writer:
        writer.save(7, {name: t.clone() for name, t in build_task(toy.config()).state_dict().items()}, {}, {})
    for step in ("step-00000007", "step-00000006"):
        file = run / "checkpoints" / step / "task.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1  # a number's sign: nothing but its hash tells
        file.write_bytes(content)
        if step == "step-00000007":
            state = exported(run, tmp_path / "out.pth")
            assert "step-00000007" in capsys.readouterr().out
            assert torch.equal(state["itm_head.weight"], task.student.itm_head.weight)
    with pytest.raises(UserError, match="all 2 checkpoints are damaged"):
        export_official(str(run), tmp_path / "again.pth")
    assert not (tmp_path / "again.pth").exists()


def test_a_damaged_model_is_not_exported(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY)
    save_model(tmp_path / "model", ALBEF(toy.MODEL), tokenizer, "")
    weights = tmp_path / "model" / "model.safetensors"
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    with pytest.raises(UserError, match=r"model\.safetensors is not what was written"):
        export_official(str(tmp_path / "model"), tmp_path / "out.pth")
    weights.write_bytes(sound)
    for key, value in (("heads", ["contrast", "itm"]), ("text_depth", 2)):
        file = tmp_path / "model" / "config.json"
        stored = file.read_text()
        file.write_text(json.dumps(json.loads(stored) | {key: value}))
        with pytest.raises(UserError, match=r"the weights do not fit config\.json"):
            export_official(str(tmp_path / "model"), tmp_path / "out.pth")
        file.write_text(stored)
