"""A published file is taken by the importer of its own system, and by no other."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import toy
import toy_clip
import toy_lxmert
import toy_oscar
import toy_uniter
from albef.cli import main
from albef.config import UserError
from albef.data.words import AnyTokenizer
from albef.exchange import importing
from albef.exchange.choices import EXPORTS, Choices
from albef.exchange.exporting import OPTIONS
from albef.exchange.opening import open_published
from albef.model.verbs import VisionLanguageModel
from albef.model_directory import FILES, save_model
from albef.peers.uniter_text import CasedTokenizer
from albef.systems import SYSTEMS
from commands import refused
from toy_published import toy_state

ENGINE, CLIP = toy.engine("entailment"), toy_clip.engine()  # without a queue, which takes seconds to write
CASED = CasedTokenizer.train(toy.CAPTIONS, 120)
MODELS: dict[str, tuple[VisionLanguageModel, AnyTokenizer]] = {
    "albef": (ENGINE.model, ENGINE.tokenizer),
    "clip": (CLIP.model, CLIP.tokenizer),
    "lxmert": (toy_lxmert.model(), ENGINE.tokenizer),
    "oscar": (toy_oscar.model(), ENGINE.tokenizer),
    "uniter": (toy_uniter.model(), CASED),
}
IMPORTERS: dict[str, Callable[..., object]] = {
    "albef": importing.import_albef,
    "clip": importing.import_clip,
    "lxmert": importing.import_lxmert,
    "oscar": importing.import_oscar,
    "uniter": importing.import_uniter,
}
FORMS = ["--official", *EXPORTS]


def published(system: str) -> dict[str, Tensor]:
    if system == "albef":
        return toy_state("ve")
    model, _ = MODELS[system]
    return dict(SYSTEMS[model.config.system].published(model.state_dict(), model.config))


def test_the_table_has_every_system() -> None:
    assert set(MODELS) == set(IMPORTERS) == set(SYSTEMS)
    assert {one.convert for one in importing.RECOGNISED} == set(IMPORTERS.values())
    assert {system for systems in OPTIONS.values() for system in systems} == set(SYSTEMS)


@pytest.mark.parametrize("importer", IMPORTERS)
@pytest.mark.parametrize("system", MODELS)
def test_a_file_is_refused_by_the_importers_of_other_systems(
    system: str, importer: str, tmp_path: Path
) -> None:
    torch.save(published(system), tmp_path / "file.pth")
    opened = open_published(tmp_path / "file.pth")
    if system == importer:
        (taken,) = (one for one in importing.RECOGNISED if any(n.startswith(one.roots) for n in opened.state))
        assert taken.convert is IMPORTERS[importer]
        return
    with pytest.raises(UserError) as refusal:
        IMPORTERS[importer](opened, tmp_path / "model", Choices())
    said = str(refusal.value)
    assert said.startswith(f"{tmp_path}/file.pth: ")
    assert importer.upper() in said
    assert "checkpoint" in said
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("system", MODELS)
def test_a_part_of_a_file_is_no_model(
    system: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever single tensor is left, the command says one sentence about this file."""
    for number, (name, tensor) in enumerate(published(system).items()):
        if number % 7:
            continue
        torch.save({name: tensor.clone()}, tmp_path / "part.pth")
        said = refused(capsys, "import", str(tmp_path / "part.pth"), "--out", str(tmp_path / "model"))
        assert "part.pth: " in said, name
        assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("names", [("bert.encoder.layer.0.output.dense.weight",), ("blip.a", "b"), ("a",)])
def test_a_file_of_none_of_them_is_refused(
    names: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({name: torch.zeros(2, 2) for name in names}, tmp_path / "bert.bin")
    said = refused(capsys, "import", str(tmp_path / "bert.bin"), "--out", str(tmp_path / "model"))
    assert "ALBEF, CLIP, LXMERT, OSCAR and UNITER" in said
    assert names[0] in said


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("system", MODELS)
def test_a_model_is_written_in_the_forms_of_its_system(
    system: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, tokenizer = MODELS[system]
    save_model(tmp_path / "model", model, tokenizer, "")
    assert {one.name for one in (tmp_path / "model").iterdir()} <= {*FILES, "manifest.json"}
    place = str(tmp_path / "out")
    arguments = ["export", str(tmp_path / "model"), form, place]
    if form != "--official":
        arguments[2:3] = ["--to", form, "--out"]
    option = "--official FILE.pth" if form == "--official" else f"--to {form}"
    if system in OPTIONS[option]:
        main(arguments)
        assert Path(place).exists()
        return
    said = refused(capsys, *arguments)
    own = [name for name, systems in OPTIONS.items() if system in systems]
    assert f"is a model of system {system}, but {option} is for models of system" in said
    assert said.endswith(f"write it with {' or '.join(own)}.\n")
    assert not Path(place).exists()
