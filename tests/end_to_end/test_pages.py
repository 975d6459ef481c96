"""The Python in README and docs runs as it stands there, on toys in the place of the models that it names."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import toy
import toy_regions
from albef.data.text import Tokenizer
from albef.model.albef import ALBEF
from albef.model_directory import save_model
from albef.recipe import dump_config
from albef.run import prepare
from albef.tasks.pretrain import Pretrain
from albef.train.checkpoint import CheckpointWriter

ROOT = Path(__file__).parent.parent.parent
WRITTEN = {*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - {ROOT / "CHANGELOG.md"}
PAGES = {
    path: blocks
    for path in sorted(WRITTEN)
    if (blocks := re.findall(r"^```python\n(.*?)^```", path.read_text("utf-8"), re.MULTILINE | re.DOTALL))
}
MODELS = {
    "quickstart": ("contrast", "itm", "mlm"),
    "retrieval": ("contrast", "itm"),
    "grounding": ("contrast", "itm"),
    "vqa": ("answer",),
    "entailment": ("entailment",),
    "nlvr": ("nlvr",),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the runs, the recipe and the pictures that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    tokenizer = Tokenizer.train(toy.CAPTIONS, toy.ENGINE_MODEL.vocab_size)
    for name, heads in MODELS.items():
        answers = ["yes", "no"] if name == "vqa" else []
        save_model(tmp_path / "runs" / name / "model", ALBEF(toy.ENGINE_MODEL, heads), tokenizer, "", answers)
    for number, name in enumerate(("a", "b", "image", "picture", "left", "right")):
        noise = np.random.default_rng(number).integers(0, 255, (20, 30, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{name}.jpg")
    seer = toy_regions.engine("uniter")
    save_model(tmp_path / "runs" / "uniter" / "model", seer.model, seer.tokenizer, "")
    (tmp_path / "my-regions").mkdir()
    for number, name in enumerate(("a", "b")):
        np.savez(tmp_path / "my-regions" / f"{name}.npz", **toy_regions.regions(number, 3))
    (tmp_path / "recipes").mkdir()
    config = toy.config()
    config = dataclasses.replace(config, train=dataclasses.replace(config.train, threads=1))
    (tmp_path / "recipes" / "quickstart.yaml").write_text(dump_config(config))
    return tmp_path


def test_blocks_of_python_are_called_so() -> None:
    names = {
        name for page in WRITTEN for name in re.findall(r"^ *```(\w+)", page.read_text("utf-8"), re.MULTILINE)
    }
    assert not names & {"py", "python3", "pycon", "ipython"}
    blocks = sum(map(len, PAGES.values()))
    assert blocks == sum(page.read_text("utf-8").count("```python") for page in WRITTEN)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_code_of_a_page_runs(page: Path, place: Path) -> None:
    threads, names = torch.get_num_threads(), {"__name__": "__main__"}
    if page.stem == "runs":  # which is about checkpoints
        (place / "runs" / "quickstart" / "model").rename(place / "model")
        config = prepare(toy.config(), place / "runs" / "quickstart")
        with CheckpointWriter(place / "runs" / "quickstart" / "checkpoints", {}, keep=1) as writer:
            writer.save(3, Pretrain(config).state_dict(), {}, {})
    for block in PAGES[page]:
        exec(compile(block, str(page), "exec"), names)
    torch.set_num_threads(threads)
    if page.stem == "runs":
        assert (place / "models" / "step-00000003" / "model.safetensors").is_file()
    if page.stem == "python":
        assert names["chances"].sum(1) == pytest.approx([1, 1])
        assert len(names["fused"].tokens) == 2
        assert (place / "runs" / "ten-steps" / "report.html").is_file()
