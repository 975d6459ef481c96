"""A folder with images, a model and an index, for commands that search."""

import contextlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import toy
from albef.cli import main
from albef.model_directory import save_model


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A model, photographs in two folders, and their index."""
    engine = toy.engine()
    save_model(tmp_path / "model", engine.model, engine.tokenizer, "")
    rng = np.random.default_rng(0)
    for name in ("photos/2023/a.png", "photos/2024/b.png", "photos/2024/c d.png", "other/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(tmp_path / name)
    places = [str(tmp_path / "photos"), str(tmp_path / "other")]
    with contextlib.redirect_stdout(io.StringIO()):
        main(["index", str(tmp_path / "model"), *places, "--out", str(tmp_path / "idx")])
    return tmp_path
