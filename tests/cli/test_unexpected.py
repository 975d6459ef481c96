"""An error that nobody foresaw is one sentence with the file it was at, and a traceback in a file."""

import tempfile
from pathlib import Path

import pytest
import torch

from albef.cli import main
from albef.errors import reading


def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every index fail while it is at an image."""

    def fail(*given: object) -> None:
        reading.set("holiday/a.jpg")
        raise ZeroDivisionError("division of\nzebras")

    monkeypatch.setattr("albef.engine.Engine.load", fail)
    monkeypatch.setattr("albef.search.index.find_images", fail)


def test_a_sentence_and_a_file_beside_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch)
    monkeypatch.delenv("ALBEF_TRACEBACK")
    with pytest.raises(SystemExit) as stop:
        main(["index", "model", "holiday", "--out", str(tmp_path / "idx")])
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert "(ZeroDivisionError: division of)" in said
    assert "holiday/a.jpg" in said
    assert "Traceback" not in said
    assert str(tmp_path / "albef-error.txt") in said
    kept = (tmp_path / "albef-error.txt").read_text()
    assert "Traceback" in kept
    assert "albef index model holiday" in kept
    assert "torch" in kept


def test_elsewhere_where_the_output_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch)
    monkeypatch.delenv("ALBEF_TRACEBACK")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "out" / "albef-error.txt").mkdir(parents=True)
    with pytest.raises(SystemExit) as stop:
        main(["index", "model", "holiday", "--out", str(tmp_path / "out" / "idx")])
    assert stop.value.code == 1
    (kept,) = tmp_path.glob("albef-error-*.txt")
    assert str(kept) in capsys.readouterr().err


def test_the_traceback_is_shown_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch)
    monkeypatch.delenv("ALBEF_TRACEBACK")
    with pytest.raises(ZeroDivisionError):
        main(["index", "model", "holiday", "--out", str(tmp_path / "idx"), "--traceback"])


def test_the_version_names_torch_and_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith("albef ")
    assert "torch 2" in said
    assert said.count(",") >= 3


@pytest.mark.parametrize(
    ("command", "named", "unnamed"),
    [
        (["index", "model", "holiday", "--out", "idx"], ["--batch-size", "--bf16", "--device=cpu"], []),
        (["evaluate", "model", "--bf16"], ["--device=cpu"], ["--batch-size", "--bf16"]),
    ],
)
def test_a_full_gpu_is_told_with_the_options_there_are(
    command: list[str],
    named: list[str],
    unnamed: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full(*given: object) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("albef.engine.Engine.load", full)
    monkeypatch.setattr("albef.search.index.find_images", lambda places: ([], []))
    with pytest.raises(SystemExit) as stop:
        main(command)
    said = capsys.readouterr().err
    assert stop.value.code == 2
    assert "memory of the GPU is full" in said
    assert all(name in said for name in named)
    assert not any(name in said for name in unnamed)
