"""A manifest finds every change of a file and of itself."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from albef.manifest import Damaged, read_manifest, seal_of, verify, write_manifest


@pytest.fixture(params=["xxh3-128", "sha256"])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    (tmp_path / "weights").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "empty").touch()
    write_manifest(tmp_path, request.param, {"step": 3, "betas": (0.9, 0.999), "name": "ü"})
    return tmp_path


def test_what_was_written_verifies(folder: Path) -> None:
    manifest = verify(folder)
    assert manifest == read_manifest(folder)
    assert manifest.facts == {"step": 3, "betas": [0.9, 0.999], "name": "ü"}
    assert list(manifest.files) == ["empty", "weights"]


@given(data=st.data())
def test_no_bit_of_the_manifest_can_change(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("manifest")
    (folder / "weights").write_bytes(b"weights")
    write_manifest(folder, "sha256", {"step": 3, "seconds": 0.1 + 0.2})
    file = folder / "manifest.json"
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, 8 * len(content) - 1))
    content[place // 8] ^= 1 << place % 8
    file.write_bytes(content)
    with pytest.raises(Damaged):
        verify(folder)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("weights", b"", "weights has 0 bytes instead of 10240"),
        ("weights", bytes(10240), "content of weights"),
        ("empty", b"x", "empty has 1 bytes"),
    ],
)
def test_changed_files_are_named(folder: Path, name: str, content: bytes, problem: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(Damaged, match=problem):
        verify(folder)


def test_only_the_files_that_are_asked_for_are_looked_at(folder: Path) -> None:
    (folder / "empty").unlink()
    verify(folder, ["weights"])
    with pytest.raises(Damaged, match="empty is missing"):
        verify(folder)


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "..", ""])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    write_manifest(tmp_path, "sha256", {})
    files = {name: {"bytes": 1, "sha256": "0"}}
    content = {"format_version": 1, "seal": seal_of(files, {}), "files": files, "facts": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    with pytest.raises(Damaged, match="outside of this folder"):
        verify(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", "[" * 100_000, '{"format_version": 2}', "\x00", "{"]
)
def test_what_is_no_manifest_gives_a_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(Damaged, match=r"manifest\.json: this manifest"):
        verify(tmp_path)


def test_a_pipe_in_place_of_a_file_is_not_waited_for(folder: Path) -> None:
    (folder / "weights").unlink()
    os.mkfifo(folder / "weights")
    with pytest.raises(Damaged, match="weights is missing"):
        verify(folder)
