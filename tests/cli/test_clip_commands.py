"""`albef import` and `albef export` with CLIP's published files: in, out, used, and what is refused."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import toy
import toy_clip
import toy_openai
from albef.cli import main
from albef.engine import Engine
from albef.exchange.choices import EXPORTS
from albef.exchange.clip_files import FORMS, write_clip, write_openai
from albef.model_directory import save_model
from albef.peers.clip_names import to_published
from commands import refused

ENGINE = toy_clip.engine()
STATE = ENGINE.model.state_dict()
HEADS = ["--heads", "2", "2"]
CLIP_FORMS = [form for form, systems in EXPORTS.items() if "clip" in systems]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the toy as a model directory."""
    monkeypatch.chdir(tmp_path)
    save_model(tmp_path / "model", ENGINE.model, ENGINE.tokenizer, "")
    return tmp_path


def place_of(form: str) -> str:
    return "clip.pt" if form == "openai" else "clip"


@pytest.mark.parametrize("form", CLIP_FORMS)
def test_out_and_in_again(form: str, home: Path) -> None:
    main(["export", "model", "--to", form, "--out", place_of(form)])
    told = [*HEADS, "--activation", "quick_gelu", "--tokenizer", "model/tokenizer.json"]
    main(["import", place_of(form), "--out", "back", *(told if form == "openai" else [])])
    back = Engine.load("back", quiet=True)
    assert back.config == dataclasses.replace(ENGINE.config, vocabulary="trained", transparent="dropped")
    assert all(torch.equal(tensor, STATE[name]) for name, tensor in back.model.state_dict().items())
    assert np.array_equal(back.encode_texts(toy.CAPTIONS), ENGINE.encode_texts(toy.CAPTIONS))
    assert back.trained is not None
    assert back.trained.task == "pretrain"


def tensors(place: Path) -> dict[str, Tensor]:
    if place.is_file():
        return torch.load(place, weights_only=True)
    (weights,) = place.glob("*.safetensors")
    return load_file(weights)


@pytest.mark.parametrize("form", CLIP_FORMS)
def test_in_and_out_again_is_the_same_in_fp32(form: str, home: Path) -> None:
    write_it(form, home / "first", {name: tensor.half() for name, tensor in STATE.items()})
    published = {name: tensor.half() for name, tensor in tensors(home / "first").items()}
    rewrite(form, home / "first", published)
    told = ["--activation", "quick_gelu"] if form == "openai" else []
    main(["import", "first", "--out", "in", *HEADS, *told, "--tokenizer", "model/tokenizer.json"])
    main(["export", "in", "--to", form, "--out", "second"])
    out = tensors(home / "second")
    assert {name: tensor.dtype for name, tensor in out.items()} == dict.fromkeys(published, torch.float32)
    assert all(torch.equal(out[name], tensor.float()) for name, tensor in published.items())


def write_it(form: str, place: Path, state: dict[str, Tensor]) -> None:
    if form == "openai":
        write_openai(place, state)
    else:
        write_clip(place, state, ENGINE.config, form)


def rewrite(form: str, place: Path, published: dict[str, Tensor]) -> None:
    if form == "openai":
        torch.save(published, place)
    else:
        save_file(published, place / FORMS[form].weights)


def test_what_happened_to_the_parts_is_printed(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = {f"module.{name}": tensor for name, tensor in to_published(STATE).items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {}}, "epoch_3.pt")
    told = [*HEADS, "--activation", "gelu", "--tokenizer", "model/tokenizer.json"]
    main(["import", "epoch_3.pt", "--out", "in", *told, "--image-size", "32"])
    table = [line.split() for line in capsys.readouterr().out.splitlines()]
    count = sum(name.startswith("module.visual.") for name in state)
    assert ["loaded", "image", "encoder", str(count)] in [[w for w in row if w != "│"] for row in table]
    printed = "\n".join(" ".join(w for w in row if w != "│") for row in table)
    for row in (
        "epoch_3.pt: CLIP, of no published size",
        "loaded logit_scale 1",
        "ignored optimizer not of the model",
        "assumed activation gelu, as you said",
        "assumed heads 2 (image) and 2 (text)",
        f"assumed tokenizer its own, {ENGINE.tokenizer.vocab_size:,} byte pairs",
        "assumed image size 32: positions resized from 2 × 2 to 4 × 4",
        "Model: in",
    ):
        assert row in printed
    assert Engine.load("in", quiet=True).config.image_size == 32


def test_an_archive_of_openais_goes_in(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy_openai, "C", ENGINE.config)
    toy_openai.save(toy_openai.halved(toy_openai.published()), home / "ViT.pt")
    main(["import", "ViT.pt", *HEADS, "--tokenizer", "model/tokenizer.json", "--out", "in"])
    printed = capsys.readouterr().out
    for words in ("quick_gelu, as in all archives of OpenAI", "stored in fp32", "attn_mask", "vocab_size"):
        assert words in printed
    engine = Engine.load("in", quiet=True)
    assert engine.config.activation == "quick_gelu"
    assert engine.model.logit_scale.item() == pytest.approx(2.6)


def test_an_imported_model_is_indexed_searched_and_evaluated(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_clip(home / "hub", STATE, ENGINE.config, "hugging-face", home / "model" / "tokenizer.json")
    main(["import", "hub", "--out", "in"])
    rows = []
    for number, shade in enumerate((0, 90, 200)):
        Image.fromarray(np.full((12, 20, 3), shade, np.uint8)).save(f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": toy.CAPTIONS[number]})
    Path("rows.json").write_text(json.dumps(rows))
    main(["index", "in", ".", "--out", "idx"])
    capsys.readouterr()
    main(["search", "idx", "a fox", "--json", "-"])
    hits = json.loads(capsys.readouterr().out)
    images = [np.full((12, 20, 3), shade, np.uint8) for shade in (0, 90, 200)]
    expected = [f"{hit.number}.png" for hit in ENGINE.rank("a fox", images)]
    assert [Path(hit["path"]).name for hit in hits] == expected
    assert all(hit["match"] is None for hit in hits)
    main(["evaluate", "in", "--data", "rows.json", "--json", "-"])
    assert json.loads(capsys.readouterr().out)
    main(["info", "in", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert (facts["system"], facts["heads"]) == ("clip", "contrast")


def no_archive(home: Path) -> list[str]:
    class Other(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = torch.nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(x)

    toy_openai.save(Other(), home / "other.pt")
    return ["other.pt"]


def code_inside(home: Path) -> list[str]:
    torch.save({"state_dict": Path}, "code.pt")
    return ["code.pt"]


def of_published(change: Callable[[dict[str, Tensor]], object], *told: str) -> Callable[[Path], list[str]]:
    """A state dict with OpenAI's names that was changed."""

    def made(home: Path) -> list[str]:
        state = to_published(STATE)
        change(state)
        torch.save(state, "clip.pt")
        return ["clip.pt", *HEADS, *told]

    return made


def cut_off(home: Path) -> list[str]:
    whole = toy_openai.save(toy_openai.published(), home / "whole.pt").read_bytes()
    Path("cut.pt").write_bytes(whole[: len(whole) // 2])
    return ["cut.pt"]


def cut_safetensors(home: Path) -> list[str]:
    write_clip(home / "hub", STATE, ENGINE.config, "open-clip")
    (weights,) = (home / "hub").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:-100])
    return ["hub"]


def no_weights(home: Path) -> list[str]:
    Path("empty").mkdir()
    Path("empty/config.json").write_text("{}")
    return ["empty"]


def other_tokenizer(home: Path) -> list[str]:
    write_clip(home / "hub", STATE, ENGINE.config, "hugging-face")
    return ["hub"]


def an_albef(home: Path) -> list[str]:
    torch.save({"model": {"visual_encoder.cls_token": torch.zeros(1)}}, "ALBEF.pth")
    return ["ALBEF.pth", "--activation", "gelu"]


QUICK = ("--activation", "quick_gelu")
BAD = {
    "an archive of another model": (no_archive, "not one of the published models"),
    "a file that would run code": (code_inside, "could run anything"),
    "RN50": (
        of_published(lambda state: state.update({"visual.attnpool.q_proj.bias": torch.ones(2)})),
        "ResNet",
    ),
    "no activation": (of_published(lambda state: None), "--activation"),
    "another tokenizer": (of_published(lambda state: None, *QUICK), "--tokenizer"),
    "another tokenizer in a folder": (other_tokenizer, "--tokenizer"),
    "an archive that is cut off": (cut_off, "cut off"),
    "safetensors that are cut off": (cut_safetensors, "safetensors"),
    "a folder without weights": (no_weights, "Name the file"),
    "no file": (lambda home: ["nowhere.pt"], "no such file or folder"),
    "a model directory": (lambda home: ["model"], "a model directory already"),
    "answers": (of_published(lambda state: None, *QUICK, "--answers", "a.json"), "--answers means nothing"),
    "[SEP]": (of_published(lambda state: None, *QUICK, "--no-append-sep"), "--append-sep means nothing"),
    "an activation for an ALBEF": (an_albef, "--activation means nothing"),
    "an odd image size": (
        of_published(lambda state: None, *QUICK, "--image-size", "20"),
        "multiple of 8",
    ),
    "a tokenizer of another kind": (
        of_published(lambda state: None, *QUICK, "--tokenizer", "clip.pt"),
        "not a tokenizer.json",
    ),
}


@pytest.mark.parametrize(("make", "problem"), BAD.values(), ids=BAD)
def test_bad_input_is_one_sentence(
    make: Callable[[Path], list[str]], problem: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = make(home)
    said = refused(capsys, "import", *arguments, "--out", "in")
    assert problem in said
    assert arguments[0] in said or "image size 20" in said
    assert not Path("in").exists()


def test_forms_are_those_of_the_files() -> None:
    assert ["openai", *FORMS] == CLIP_FORMS


@pytest.mark.parametrize("form", CLIP_FORMS)
def test_an_albef_has_no_form_of_clips(form: str, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine = toy.engine()
    save_model(home / "albef", engine.model, engine.tokenizer, "")
    said = refused(capsys, "export", "albef", "--to", form, "--out", "out")
    assert "is a model of system albef" in said
    assert said.endswith("write it with --official FILE.pth.\n")
    assert not Path("out").exists()


def test_a_clip_is_no_file_of_albefs_scripts(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "export", "model", "--official", "out.pth")
    assert "is a model of system clip" in said
    assert f"write it with --to {' or --to '.join(CLIP_FORMS)}.\n" in said
    assert not Path("out.pth").exists()


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--to", "openai"], "needs --out"),
        (["--official", "a.pth", "--out", "b"], "--out belongs to --to"),
        (["--to", "openai", "--out", "model/config.json"], "a part of the folder"),
        (["--to", "hugging-face", "--out", "model"], "README.md, which would be overwritten"),
    ],
)
def test_where_to_write(
    arguments: list[str], problem: str, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert problem in refused(capsys, "export", "model", *arguments)
