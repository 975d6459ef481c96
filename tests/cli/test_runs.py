"""What `albef runs`, `albef verify` and `albef doctor` say of folders."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toy
from albef.cli import main
from albef.cli.doctor import findings
from albef.cli.runs import run_state, runs_in, verified
from albef.config import UserError
from albef.engine import Engine
from albef.model_directory import save_model
from albef.run import prepare
from albef.search.index import build_index, load_index
from albef.tasks.pretrain import Pretrain
from albef.train.checkpoint import CheckpointWriter


def begun(folder: Path, *steps: int) -> Path:
    """A run of 6 steps with checkpoints after some of them."""
    prepare(toy.config(), folder)
    task = Pretrain(toy.config())
    with CheckpointWriter(folder / "checkpoints", {}, keep=9) as writer:
        for step in steps:
            writer.save(step, task.state_dict(), {}, {})
    return folder


def test_the_state_of_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(tmp_path / "a")
    begun(tmp_path / "b", 2, 4)
    lines = [
        {"step": 3, "itc": 1.0, "itm": 0.5, "lr": 1e-4},
        {"step": 4, "itc": 0.5, "itm": 0.25, "lr": 1e-4},
    ]
    (tmp_path / "b" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"step"')
    begun(tmp_path / "c", 6)
    begun(tmp_path / "deep" / "d", 6)
    (tmp_path / "deep" / "d" / "metrics.json").write_text('{"test/x": 1, "test/both/t2i_r1": 0.25}')
    begun(tmp_path / "e")
    (tmp_path / "e" / "config.yaml").write_text("no: recipe")
    found = {state.folder.name: state[1:] for state in runs_in(tmp_path)}
    assert found == {
        "a": ("started, no checkpoint", 0, 6, ""),
        "b": ("stopped", 4, 6, "loss 0.750 at step 4"),
        "c": ("trained, not evaluated", 6, 6, ""),
        "d": ("finished", 6, 6, "test/both/t2i_r1 0.250"),
        "e": ("unreadable config.yaml", 0, 0, ""),
    }
    main(["runs", str(tmp_path)])
    assert "finished" in capsys.readouterr().out
    with pytest.raises(UserError, match="no such folder"):
        runs_in(tmp_path / "none")


def test_a_run_is_verified_checkpoint_by_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = begun(tmp_path / "run", 1, 2, 3)
    assert [problem for _, problem in verified(run)] == ["", "", ""]
    main(["verify", str(run)])
    (run / "checkpoints" / "step-00000002" / "state.json").write_text("{}")
    (run / "checkpoints" / "step-00000003" / "manifest.json").unlink()
    assert [bool(problem) for _, problem in verified(run)] == [False, True, True]
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(run)])
    assert stopped.value.code == 1
    assert "state.json has 2 bytes" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no manifest\.json"):
        list(verified(tmp_path / "run" / "checkpoints" / "step-00000003"))
    assert run_state(run).step == 3


def test_a_model_and_an_index_are_verified_and_not_loaded_when_damaged(
    tmp_path: Path, engine: Engine
) -> None:
    model, index = tmp_path / "model", tmp_path / "index"
    save_model(model, engine.model, engine.tokenizer, "card")
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(tmp_path / "a.png")
    build_index(engine, [tmp_path / "a.png"], index)
    for folder, file, read in (
        (model, "model.safetensors", Engine.load),
        (index, "features.npy", load_index),
    ):
        assert list(verified(folder)) == [(folder, "")]
        read(folder)
        content = bytearray((folder / file).read_bytes())
        content[-1] ^= 1
        (folder / file).write_bytes(content)
        with pytest.raises(UserError, match=f"the content of {file} is not what was written"):
            read(folder)
        (folder / "manifest.json").unlink()  # as in folders of older versions
        read(folder)
    save_model(model, engine.model, engine.tokenizer, "card")
    (model / "README.md").write_text("A card of my own.")
    Engine.load(model)
    assert "README.md" in next(iter(verified(model)))[1]


def test_the_doctor_finds_everything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("albef.cli.doctor.Config", toy.config)  # kernels of size base take seconds to measure
    found = {name: value for name, value, _ in findings(tmp_path / "not" / "yet")}
    assert {"torch", "device", "open files", f"free disk at {tmp_path}"} <= found.keys()
    assert found[f"free disk at {tmp_path}"].endswith(" GB")
    main(["doctor", str(tmp_path)])
    assert "open files" in capsys.readouterr().out


def test_brackets_in_names_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "a[" / "b]"
    (folder / "[old]").mkdir(parents=True)
    (folder / "[old]" / "config.yaml").write_text("train: {steps: 7}")
    main(["runs", str(folder)])
    assert "[old]" in capsys.readouterr().out
