"""A run goes on in its folder only with what it was begun with, and says what differs."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

import toy
from albef.config import DISTILLED, DataConfig, Distilled, TaskConfig, TrainConfig, UserError
from albef.data.text import Tokenizer
from albef.manifest import Manifest
from albef.model.albef import ALBEF
from albef.model_directory import save_model
from albef.recipe import load_recipe
from albef.run import prepare
from albef.train.checkpoint import CheckpointWriter
from albef.train.loop import train
from albef.train.resume import DATA, HARMLESS, changes, identity, settings


def test_the_harmless_settings_exist() -> None:
    assert settings(toy.config()).keys() >= HARMLESS


def test_what_changes_what_is_learnt_is_refused_and_named(tmp_path: Path) -> None:
    config = prepare(toy.config(), tmp_path)
    for section, key, value in (
        ("train", "seed", 7),
        ("data", "count", 25),
        ("model", "dropout", 0.3),
        ("train", "betas", (0.9, 0.99)),
    ):
        changed = dataclasses.replace(getattr(config, section), **{key: value})
        with pytest.raises(
            UserError, match=rf"holds a run with other settings \({section}\.{key}: .* → .*\)"
        ):
            prepare(dataclasses.replace(config, **{section: changed}), tmp_path)
    assert prepare(config, tmp_path) == config
    assert not (tmp_path / "changes.jsonl").exists()


@pytest.mark.parametrize(("switch", "losses"), [(True, DISTILLED), (False, ())])
def test_a_run_of_an_earlier_release_goes_on_with_the_losses_that_its_switch_meant(
    tmp_path: Path, switch: bool, losses: tuple[Distilled, ...]
) -> None:
    config = toy.config(task=TaskConfig(queue_size=10, distill=losses))
    identified = identity(config)
    identified["config"]["task.distill"] = switch  # as 0.1.0 wrote it
    manifest = Manifest({}, {**identified, "step": 3}, "")
    assert list(changes(tmp_path, config, manifest)) == []
    other = toy.config(task=TaskConfig(queue_size=10, distill=("itc",)))
    assert [str(change) for change in changes(tmp_path, other, manifest)] == [
        f"task.distill: {list(losses)} → ['itc']"
    ]


def test_harmless_changes_are_let_through_and_noted(tmp_path: Path) -> None:
    config = prepare(toy.config(), tmp_path)
    changed = dataclasses.replace(config, train=dataclasses.replace(config.train, log_every_steps=3))
    assert prepare(changed, tmp_path) == changed
    noted = [json.loads(line) for line in (tmp_path / "changes.jsonl").read_text().splitlines()]
    assert noted == [{"step": 0, "setting": "train.log_every_steps", "old": 1, "new": 3}]


def test_a_change_that_is_insisted_on_is_noted(tmp_path: Path) -> None:
    config = prepare(toy.config(), tmp_path)
    changed = dataclasses.replace(config, train=dataclasses.replace(config.train, lr=1e-3))
    assert prepare(changed, tmp_path, allow_changes=True) == changed
    assert '"setting": "train.lr"' in (tmp_path / "changes.jsonl").read_text()


def test_a_run_never_goes_on_with_another_optimizer(tmp_path: Path) -> None:
    config = prepare(toy.config(), tmp_path)
    changed = dataclasses.replace(config, train=dataclasses.replace(config.train, optimizer="muon"))
    assert prepare(changed, tmp_path, allow_changes=True) == changed  # nothing is trained yet
    train(changed, tmp_path)
    embeddings = dataclasses.replace(changed, train=dataclasses.replace(changed.train, decay_embeddings=True))
    for other, said in (
        (config, r"train\.optimizer: muon → adamw"),
        (embeddings, r"train\.decay_embeddings: False → True"),
    ):
        for insisted in (True, False):
            with pytest.raises(UserError, match=rf"another optimizer \({said}\)"):
                prepare(other, tmp_path, allow_changes=insisted)


def own_data(folder: Path, words: str) -> DataConfig:
    import numpy as np
    from PIL import Image

    rows = []
    for number in range(8):
        Image.fromarray(np.full((20, 30, 3), 20 * number, np.uint8)).save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": f"{words} {number}"})
    (folder / "pairs.json").write_text(json.dumps(rows))
    return DataConfig(source=str(folder / "pairs.json"))


def test_other_data_under_the_same_name_are_refused_but_moved_data_are_not(tmp_path: Path) -> None:
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    train_config = TrainConfig(steps=2, batch_size=4, precision="fp32")
    config = prepare(toy.config(data=own_data(data, "a fox"), train=train_config), run)
    train(config, run)
    moved = data.rename(tmp_path / "moved")
    elsewhere = dataclasses.replace(config.data, source=str(moved / "pairs.json"))
    prepare(dataclasses.replace(config, data=elsewhere), run)
    own_data(moved, "a cat")
    with pytest.raises(UserError, match=DATA):
        prepare(dataclasses.replace(config, data=elsewhere), run)


def test_the_checkpoint_is_believed_more_than_an_edited_configuration(tmp_path: Path) -> None:
    config = prepare(toy.config(), tmp_path)
    with CheckpointWriter(tmp_path / "checkpoints", identity(config), keep=1) as writer:
        writer.save(3, {"weight": torch.zeros(1)}, {}, {})
    file = tmp_path / "config.yaml"
    file.write_text(file.read_text().replace("seed: 42", "seed: 43"))
    changed = dataclasses.replace(config, train=dataclasses.replace(config.train, seed=43))
    with pytest.raises(UserError, match=r"train\.seed: 42 → 43"):
        prepare(changed, tmp_path)


def test_the_model_that_a_run_began_with_is_not_needed_again(tmp_path: Path) -> None:
    started = dataclasses.replace(toy.MODEL, image_depth=2)
    tokenizer = Tokenizer.train(toy.CAPTIONS, toy.VOCABULARY)
    save_model(tmp_path / "model", ALBEF(started), tokenizer, "")
    run, start = tmp_path / "run", str(tmp_path / "model")
    begun = toy.config(train=TrainConfig(init=start, steps=2, batch_size=4, precision="fp32"))
    config = prepare(begun, run)
    (tmp_path / "model").rename(tmp_path / "gone")
    assert config.model.image_depth == 2
    assert prepare(load_recipe(run / "config.yaml"), run) == prepare(begun, run) == config
    other = dataclasses.replace(begun, model=dataclasses.replace(begun.model, dropout=0.3))
    with pytest.raises(UserError, match=r"model\.dropout: 0\.1 → 0\.3"):
        prepare(other, run)


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".config.yaml.writing").write_text("left by a killed process")
    prepare(toy.config(), tmp_path)
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(UserError, match="not empty and holds no run"):
        prepare(toy.config(), tmp_path)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta", "cpu:x"])
def test_a_device_that_is_not_there_leaves_no_folder(tmp_path: Path, device: str) -> None:
    config = toy.config(train=TrainConfig(batch_size=4, device=device))
    with pytest.raises(UserError, match=f"Device '{device}' can't be used here"):
        prepare(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
