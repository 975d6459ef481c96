"""Checkpoint files: wrapped or bare, new or old, and what is refused unread."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import pytest
import torch

from albef.config import ModelConfig, UserError
from albef.exchange.pth import read_pth, write_pth

STATE = {"temp": torch.tensor(0.5), "visual_encoder.norm.weight": torch.arange(6.0).reshape(2, 3)}


class Code:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [True, False])
@pytest.mark.parametrize("new", [True, False])
def test_every_wrapping_gives_the_same_names(tmp_path: Path, prefix: str, wrapped: bool, new: bool) -> None:
    state = {prefix + name: tensor for name, tensor in STATE.items()}
    content = {"model": state, "epoch": 3, "optimizer": {"state": {}}} if wrapped else state
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
    read = read_pth(tmp_path / "a.pth")
    assert set(read.state) == set(STATE)
    assert all(torch.equal(read.state[name], tensor) for name, tensor in STATE.items())
    assert read.beside == (["epoch", "optimizer"] if wrapped else [])
    assert read.mapped is new


def test_a_file_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    torch.save({"model": STATE, "config": Code(f"touch {tmp_path / 'ran'}")}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match=r"evil\.pth: was not read, .* call posix\.system"):
        read_pth(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, new: bool, share: float) -> None:
    torch.save({"model": STATE}, tmp_path / "whole.pth", _use_new_zipfile_serialization=new)
    content = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(UserError, match=r"cut\.pth: not a checkpoint, or cut off"):
        read_pth(tmp_path / "cut.pth")


def test_other_contents_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        read_pth(tmp_path / "absent.pth")
    (tmp_path / "page.pth").write_text("<html>404</html>")
    with pytest.raises(UserError, match="not a checkpoint"):
        read_pth(tmp_path / "page.pth")
    for content in (
        {"model": {"a": 1}},
        {},
        torch.zeros(3),
        [torch.zeros(3)],
        {"a": torch.zeros(2), "b": "x"},
    ):
        torch.save(content, tmp_path / "other.pth")
        with pytest.raises(UserError, match="not the state dict of a model"):
            read_pth(tmp_path / "other.pth")


def test_a_tensor_larger_than_its_file_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "huge.pth")
    with pytest.raises(UserError, match="a claims more than the file holds"):
        read_pth(tmp_path / "huge.pth")


def test_parts_of_a_tensor_are_written_alone_and_the_same_tensor_once(tmp_path: Path) -> None:
    whole = torch.randn(3000, 10)
    query, key, value = whole.chunk(3)
    write_pth(tmp_path / "a.pth", {"query": query, "tied": query, "column": whole[:, :1]}, ModelConfig())
    read = read_pth(tmp_path / "a.pth").state
    assert torch.equal(read["query"], query)
    assert torch.equal(read["tied"], query)
    assert torch.equal(read["column"], whole[:, :1])
    assert (tmp_path / "a.pth").stat().st_size < query.nbytes + 3000 * 4 + 4000
    with pytest.raises(UserError, match="exists already"):
        write_pth(tmp_path / "a.pth", {"key": key, "value": value}, ModelConfig())
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(content: object, file: BinaryIO) -> None:
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="can't be written: the disk is full"):
        write_pth(tmp_path / "a.pth", STATE, ModelConfig())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "odd",
    [
        lambda tensor: tensor.to_sparse(),
        lambda tensor: tensor.to_sparse_csr(),
        lambda tensor: tensor.to("meta"),
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
        lambda tensor: torch.nested.nested_tensor([tensor]),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_stored_in_another_way_are_refused(tmp_path: Path, odd: Callable) -> None:
    torch.save({"a": odd(torch.ones(2, 3))}, tmp_path / "odd.pth")
    with pytest.raises(UserError, match=r"odd\.pth: (a is no plain tensor|not a checkpoint)"):
        read_pth(tmp_path / "odd.pth")
