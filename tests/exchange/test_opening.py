"""Published files are opened by what they are, whatever their names; what is none ends in a sentence."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import toy_openai
from albef.config import UserError
from albef.exchange.opening import WHOLE, open_published

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "module.b": torch.ones(())}
NAMES = {"a.weight", "b"}


def test_every_format_gives_the_same_names(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    torch.save(STATE, tmp_path / "a.pt")
    torch.save({"state_dict": STATE, "epoch": 3}, tmp_path / "b.pt")
    torch.save({"model": STATE, "state_dict": 1}, tmp_path / "a.bin")
    for name, beside in {"a.safetensors": [], "a.pt": [], "b.pt": ["epoch"], "a.bin": ["state_dict"]}.items():
        opened = open_published(tmp_path / name)
        assert opened.file == tmp_path / name
        assert set(opened.state) == NAMES
        assert torch.equal(opened.state["a.weight"], STATE["a.weight"])
        assert (opened.beside, opened.mapped, opened.scripted) == (beside, True, False)


def test_an_archive_is_known_whatever_its_name(tmp_path: Path) -> None:
    toy_openai.save(toy_openai.published(), tmp_path / "model.bin")
    opened = open_published(tmp_path)
    assert opened.scripted
    assert "visual.proj" in opened.state


def test_of_a_folder_the_whole_model_is_taken(tmp_path: Path) -> None:
    """Folders of open_clip's on the hub hold the image encoder alone, too."""
    for name in reversed(WHOLE):
        if name.endswith(".bin"):
            torch.save(STATE, tmp_path / name)
        else:
            save_file(STATE, tmp_path / name)
        assert open_published(tmp_path).file.name == name
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds neither"):
        open_published(tmp_path / "empty")


def test_what_is_none(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 605157884\n"
    (tmp_path / "model.safetensors").write_text(pointer)
    with pytest.raises(UserError, match=r"model\.safetensors: not a readable safetensors file"):
        open_published(tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        open_published(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["{}", "[]", "3", "{", "[" * 100_000, '"format_version"'])
def test_a_folder_whose_configuration_is_not_ours_is_opened(content: str, tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(content)
    assert set(open_published(tmp_path).state) == NAMES


def test_a_model_directory_needs_no_import(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"format_version": 1}))
    with pytest.raises(UserError, match="is a model directory already"):
        open_published(tmp_path)
