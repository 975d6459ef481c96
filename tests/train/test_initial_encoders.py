"""Encoders that start from files of one modality: both twins get them, misfits name file and setting."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import toy
from albef.config import TrainConfig, UserError
from albef.data.text import Tokenizer
from albef.model.albef import ALBEF
from albef.model.checkpoints import to_published
from albef.run import prepare
from albef.tasks.classes import NLVR
from albef.tasks.pretrain import Pretrain
from albef.tasks.vqa import VQA
from albef.train.initial_encoders import initial_encoders, start_from_encoders


def unimodal(folder: Path) -> tuple[TrainConfig, ALBEF]:
    """A ViT and a BERT as two folders, out of a model whose published names are theirs with a prefix."""
    model = ALBEF(toy.MODEL, ("mlm",))
    published = to_published(model.state_dict(), toy.MODEL)
    settings = {}
    for encoder, prefix in (("image", "visual_encoder."), ("text", "text_encoder.")):
        part = {n.removeprefix(prefix): t.clone() for n, t in published.items() if n.startswith(prefix)}
        part = {name: tensor for name, tensor in part.items() if "crossattention" not in name}
        (folder / encoder).mkdir(parents=True)
        save_file(part, folder / encoder / "model.safetensors")
        settings[f"init_{encoder}"] = str(folder / encoder)
    Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY).save(folder / "text" / "tokenizer.json", toy.MODEL)
    return TrainConfig(**settings), model


def test_encoders_of_one_modality_start_student_and_teacher(tmp_path: Path) -> None:
    train, model = unimodal(tmp_path)
    task = Pretrain(toy.config())
    before = {name: tensor.clone() for name, tensor in task.student.state_dict().items()}
    started = start_from_encoders(task, train)
    student, given = task.student.state_dict(), model.state_dict()
    for name, tensor in student.items():
        assert torch.equal(tensor, task.teacher.module.state_dict()[name]), name
        assert torch.equal(tensor, given[name] if name in started.loaded else before[name]), name
    encoders = ("image_encoder.", "text_encoder.", "fusion_encoder.", "mlm_head.")
    random = {name for name in student if not name.startswith(encoders) or ".cross_attention" in name}
    assert set(started.random) == random
    assert set(started.ignored) == {
        "bert.embeddings.position_ids",
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
    }


def test_only_the_named_encoder_starts(tmp_path: Path) -> None:
    train, _ = unimodal(tmp_path)
    started = start_from_encoders(Pretrain(toy.config()), dataclasses.replace(train, init_text=""))
    assert {name.partition(".")[0] for name in started.loaded} == {"image_encoder"}


@pytest.mark.parametrize(
    ("task", "twice"), [(VQA, "answer_decoder.layers.0"), (NLVR, "fusion_encoder.layers.0.second")]
)
def test_other_tasks_take_the_fusion_layers_where_they_need_them(tmp_path: Path, task, twice: str) -> None:
    train, model = unimodal(tmp_path)
    started = task(toy.config())
    start_from_encoders(started, train)
    found = started.student.state_dict()[f"{twice}.mlp.up.weight"]
    assert torch.equal(found, model.fusion_encoder.layers[0].mlp.up.weight)


def test_misfits_name_file_and_setting(tmp_path: Path) -> None:
    train, _ = unimodal(tmp_path)
    wide = dataclasses.replace(toy.MODEL, image_mlp_width=64)
    with pytest.raises(
        UserError, match=r"image.model.safetensors: its shapes do not fit.*image_mlp_width to 32"
    ):
        initial_encoders(train, wide)
    (tmp_path / "text" / "config.json").write_text(json.dumps({"num_attention_heads": 4}))
    with pytest.raises(
        UserError, match=r"text.config.json: .* 4 attention heads, but the recipe has 2\. .*text_heads to 4"
    ):
        initial_encoders(train, toy.MODEL)
    (tmp_path / "text" / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        initial_encoders(train, toy.MODEL)


def test_a_run_takes_the_vocabulary_beside_the_weights(tmp_path: Path) -> None:
    train, _ = unimodal(tmp_path)
    config = dataclasses.replace(
        toy.config(train=train), model=dataclasses.replace(toy.MODEL, vocabulary="bert", vocab_size=99)
    )
    pieces = json.loads((tmp_path / "text" / "tokenizer.json").read_text())["model"]["vocab"]
    assert prepare(config, tmp_path / "run").model.vocab_size == len(pieces) == toy.VOCABULARY
    (tmp_path / "text" / "tokenizer.json").unlink()
    (tmp_path / "text" / "vocab.txt").write_text("\n".join(sorted(pieces, key=pieces.get)) + "\n")
    prepare(config, tmp_path / "listed")
    first, second = (Tokenizer.load(tmp_path / name / "tokenizer.json") for name in ("run", "listed"))
    assert first.encode("two red foxes", 9, True).tolist() == second.encode("two red foxes", 9, True).tolist()


def test_a_run_that_can_t_start_leaves_nothing_behind(tmp_path: Path) -> None:
    train, _ = unimodal(tmp_path)
    deeper = dataclasses.replace(
        toy.config(train=train), model=dataclasses.replace(toy.MODEL, fusion_depth=3)
    )
    with pytest.raises(UserError, match=r"choose 4 layers with train\.init_text_layers"):
        prepare(deeper, tmp_path / "run")
    both = dataclasses.replace(train, init=str(tmp_path / "model"))
    with pytest.raises(UserError, match=r"train.init already gives all encoders their weights: leave it out"):
        prepare(toy.config(train=both), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("encoder", "name"),
    [
        ("image", "patch_embed.proj.weight"),
        ("image", "blocks.0.attn.qkv.weight"),
        ("text", "bert.embeddings.word_embeddings.weight"),
        ("text", "bert.encoder.layer.0.attention.self.key.weight"),
    ],
)
def test_tensors_of_any_shape_are_told_with_their_file(tmp_path: Path, encoder: str, name: str) -> None:
    train, _ = unimodal(tmp_path)
    file = tmp_path / encoder / "model.safetensors"
    tensors = load_file(file)
    for odd in (torch.zeros(()), torch.zeros(0), torch.zeros(2, 2, 2)):
        save_file(tensors | {name: odd}, file)
        with pytest.raises(UserError, match=r"model\.safetensors: "):
            initial_encoders(train, toy.MODEL)
