"""Small public downloads for the tests of `albef data prepare`, and what came of them."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

from PIL import Image

from albef.cli import main
from albef.config import DataConfig, TaskName
from albef.data.records import Record
from albef.data.sources import open_source


def picture(path: Path) -> None:
    """A picture of 2 × 2 pixels, with the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), "red").save(path)


def write(path: Path, value: object) -> Path:
    """A text as it is, lists for .jsonl an object a line, pickles by protocol 2, everything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(value, str):
        path.write_text(value, "utf-8")
    elif path.suffix == ".p":
        path.write_bytes(pickle.dumps(value, protocol=2))
    elif path.suffix == ".jsonl":
        assert isinstance(value, list)
        path.write_text("".join(json.dumps(row) + "\n" for row in value), "utf-8")
    else:
        path.write_text(json.dumps(value), "utf-8")
    return path


def prepare(name: str, source: Path) -> Path:
    """The folder that `albef data prepare` made."""
    out = source.parent / f"{source.name}-prepared"
    main(["data", "prepare", name, "--from", str(source), "--out", str(out)])
    return out


def records(file: Path, task: TaskName, image_root: Path) -> list[Record]:
    """What a run would read of a prepared file; every picture is there."""
    source = open_source(DataConfig(source=str(file), image_root=str(image_root)), "test", 0, 16, task)
    found = [source.record(index, 0) for index in range(len(source))]
    assert all(isinstance(record.image, Path) and record.image.is_file() for record in found)
    return found
