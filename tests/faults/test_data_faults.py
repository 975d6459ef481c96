"""Broken pictures, and data workers that die, stop or dawdle."""

import io
import itertools
import json
import multiprocessing
import os
import random
import signal
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from faulty import tell
from PIL import Image

from albef.config import DataConfig, ModelConfig, UserError
from albef.data import loader
from albef.data.loader import ExampleSet, batches
from albef.data.records import Record
from albef.data.text import Tokenizer
from albef.data.words import BertWords

MODEL = ModelConfig(image_size=16, patch_size=8)
PICTURES, BATCH = 1000, 50


def bomb() -> bytes:
    """A PNG of a few bytes whose header announces 3.6 thousand megapixels."""
    content = io.BytesIO()
    Image.new("L", (1, 1)).save(content, "png")
    data = bytearray(content.getvalue())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


class Files:
    """Numbered picture files; the order in which they were taken is in the image ids."""

    couple = 1

    def __init__(self, folder: Path, stall: float = 0.0) -> None:
        self.folder, self.stall = folder, stall

    def __len__(self) -> int:
        return PICTURES

    def record(self, index: int, epoch: int) -> Record:
        mark = self.folder / "stalled"
        if self.stall and epoch == 0 and not mark.exists():
            mark.touch()
            time.sleep(self.stall)
        return Record(
            image=self.folder / f"{index}.png",
            captions=(f"picture {index}",),
            image_id=index,
            caption_ids=None,
            origin=f"{index}.png",
        )


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for index in range(PICTURES):
        noise = np.random.default_rng(index).integers(0, 256, (16, 16, 3), np.uint8)
        Image.fromarray(noise).save(folder / f"{index}.png")
    return folder


def examples(source: Files) -> ExampleSet:
    return ExampleSet(
        source, BertWords(Tokenizer.bert(), MODEL), DataConfig(max_bad_fraction=0.2), MODEL, seed=5
    )


def ids(folder: Path, listed: Path, epochs: int = 1) -> list[int]:
    stream = batches(examples(Files(folder)), BATCH, bad_samples=listed)
    taken = [
        i for batch in itertools.islice(stream, epochs * PICTURES // BATCH) for i in batch.image_id.tolist()
    ]
    stream.close()
    return taken


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
def test_broken_pictures_are_counted_listed_and_replaced(
    pictures: Path, tmp_path: Path, share: float
) -> None:
    good = ids(pictures, tmp_path / "none.jsonl")
    assert not (tmp_path / "none.jsonl").exists()
    kinds = {
        "empty": lambda data: b"",
        "HTML": lambda data: b"<!doctype html><html>404</html>",
        "truncated": lambda data: data[: len(data) // 2],
        "megapixels": lambda data: bomb(),
        "not a picture": lambda data: os.urandom(300),
    }
    broken = random.Random(0).sample(range(PICTURES), round(share * PICTURES))
    kept = {index: (pictures / f"{index}.png").read_bytes() for index in broken}
    for index, kind in zip(broken, itertools.cycle(kinds.values())):
        (pictures / f"{index}.png").write_bytes(kind(kept[index]))
    try:
        taken = ids(pictures, tmp_path / "bad.jsonl", epochs=2)
    finally:
        for index, content in kept.items():
            (pictures / f"{index}.png").write_bytes(content)
    listed = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert sorted(line["index"] for line in listed) == sorted(broken)
    assert {line["origin"] for line in listed} == {f"{index}.png" for index in broken}
    assert len({line["reason"].split(": ")[1][:12] for line in listed}) >= min(len(broken), 4)
    assert not set(taken) & set(broken)
    for before, after in zip(good, taken, strict=False):
        assert before == after or before in broken
    tell(f"broken pictures: {len(broken)} of {PICTURES} injected, {len(listed)} listed, order unchanged")


def stream_of(pictures: Path, said: list[str], stall: float = 0.0):
    return batches(examples(Files(pictures, stall)), 4, workers=2, say=said.append)


def content(stream, number: int) -> list[bytes]:
    taken = [batch.pixels.numpy().tobytes() for batch in itertools.islice(stream, number)]
    return taken


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on machines with few cores
@pytest.mark.parametrize("fault", ["killed", "stopped", "slow"])
def test_data_workers(pictures: Path, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert loader.PATIENCE_SECONDS < 30
    monkeypatch.setattr(loader, "PATIENCE_SECONDS", 8)
    (pictures / "stalled").unlink(missing_ok=True)
    alone = batches(examples(Files(pictures)), 4)
    expected = content(alone, 20)
    said: list[str] = []
    before = multiprocessing.active_children()
    stream = stream_of(pictures, said, stall=20.0 if fault == "slow" else 0.0)
    taken = [] if fault == "slow" else content(stream, 4)
    if fault != "slow":
        worker = next(child for child in multiprocessing.active_children() if child not in before)
        os.kill(worker.pid, signal.SIGKILL if fault == "killed" else signal.SIGSTOP)
    begun = time.monotonic()
    taken += content(stream, 20 - len(taken))
    noticed = time.monotonic() - begun
    stream.close()
    assert taken == expected
    assert said
    assert all("Restarting" in sentence for sentence in said)
    left = [child for child in multiprocessing.active_children() if child not in before]
    assert not left
    tell(
        f"a data worker {fault}: noticed, replaced, 20 batches bit-identical, {noticed:.0f} s (patience 8 s)"
    )


class Deadly(Files):
    """Kills whatever process reads record after record."""

    def record(self, index: int, epoch: int) -> Record:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_that_always_die_end_in_a_sentence(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "PATIENCE_SECONDS", 10)
    said: list[str] = []
    with pytest.raises(UserError, match=r"failed before their first batch.*data\.workers=0"):
        next(batches(examples(Deadly(pictures)), 4, workers=1, say=said.append))
    assert not said  # nothing is tried again
