"""Published files of LXMERT become model directories, whoever wrote them."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import toy
import toy_lxmert
from albef.config import SIZES, UserError
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.exchange.choices import Choices
from albef.exchange.exporting import export_official, export_to
from albef.exchange.importing import import_checkpoint
from albef.exchange.lxmert_files import KINDS, lxmert_of
from albef.model_directory import read_config, read_tensors, save_model
from albef.peers import lxmert_names
from albef.peers.lxmert import LXMERT

TOKENIZER = Tokenizer.train(toy.CAPTIONS, 120)
CONFIG = dataclasses.replace(toy_lxmert.CONFIG, vocab_size=TOKENIZER.vocab_size)
PRETRAINED = ("itm", "mlm", "regions", "answers")


def model(*heads: str) -> LXMERT:
    return toy_lxmert.model(*heads, config=CONFIG)


def choices(folder: Path, **more: object) -> Choices:
    TOKENIZER.save(folder / "tokenizer.json", CONFIG)
    return Choices(heads=(2,), tokenizer=folder / "tokenizer.json")._replace(**more)


def imported(folder: Path, state: dict[str, Tensor], **more: object) -> Path:
    """The model directory that a file with this state dict becomes."""
    torch.save(state, folder / "published.pth")
    import_checkpoint(folder / "published.pth", folder / "model", choices(folder, **more))
    return folder / "model"


@pytest.mark.parametrize(
    ("heads", "prefix", "naming"),
    [
        (PRETRAINED, "module.", None),
        (PRETRAINED, "", lxmert_names.HUGGING_FACE),
        (("answers",), "", None),
        (("answers",), "", lxmert_names.HUGGING_FACE),
        (("nlvr",), "", None),
    ],
)
def test_the_same_weights_come_back(
    heads: tuple[str, ...], prefix: str, naming: lxmert_names.Naming | None, tmp_path: Path
) -> None:
    own = model(*heads)
    published = lxmert_names.to_published(own.state_dict(), naming)
    folder = imported(tmp_path, {prefix + name: tensor.half() for name, tensor in published.items()})
    config, found = read_config(folder / "config.json")
    assert found == heads
    assert (config.text_depth, config.image_depth, config.fusion_depth) == (1, 1, 2)
    assert (config.region_width, config.text_heads, config.append_sep) == (6, 2, True)
    weights = read_tensors(folder / "model.safetensors")
    assert all(torch.equal(weights[name], t.half().float()) for name, t in own.state_dict().items())


def test_a_folder_of_hugging_face_is_read(tmp_path: Path) -> None:
    state = lxmert_names.to_published(model().state_dict(), lxmert_names.HUGGING_FACE)
    save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "model.safetensors")
    _, rows = import_checkpoint(tmp_path, tmp_path / "out", choices(tmp_path))
    assert ("ignored", "second names") in [row[:2] for row in rows]
    assert {row.part for row in rows if row.fate == "loaded"} == {
        "text encoder",
        "region encoder",
        "cross layers",
        "heads",
    }


@pytest.mark.parametrize(
    ("published", "heads", "num_answers"),
    [
        ("lxmert/pretraining", PRETRAINED, 9_500),
        ("lxmert/vqa", ("answers",), 3_129),
        ("lxmert/gqa", ("answers",), 1_842),
        ("lxmert/nlvr2", ("nlvr",), 1),
        ("hf/lxmert-pretraining", PRETRAINED, 9_500),
    ],
)
def test_the_published_sizes_are_recognised(published: str, heads: tuple[str, ...], num_answers: int) -> None:
    names = json.loads((Path(__file__).parent.parent / "golden" / "lxmert-names.json").read_text())
    with torch.device("meta"):
        state = {name: torch.empty(shape) for name, shape in names[published].items()}
    state.pop(lxmert_names.TIED, None)  # which could not be compared
    found = lxmert_of(state, (), Path("file.pth"), {})
    assert found.heads == heads
    sizes = {"num_answers": num_answers}
    if heads != PRETRAINED:
        sizes |= {"num_objects": 1, "num_attributes": 1}  # which such a model does not have
    assert found.config == dataclasses.replace(SIZES["lxmert-base"], **sizes)


def test_answers_lie_beside_the_model(tmp_path: Path) -> None:
    state = lxmert_names.to_published(model("answers").state_dict())
    (tmp_path / "answers.json").write_text(json.dumps(["yes", "no", "two", "a fox"]))
    folder = imported(tmp_path, state, answers=tmp_path / "answers.json")
    assert json.loads((folder / "answers.json").read_text()) == ["yes", "no", "two", "a fox"]
    (tmp_path / "answers.json").write_text(json.dumps(["yes"]))
    with pytest.raises(UserError, match=r"lists 1 answers, but published\.pth scores 4"):
        import_checkpoint(
            tmp_path / "published.pth",
            tmp_path / "other",
            choices(tmp_path, answers=tmp_path / "answers.json"),
        )


@pytest.mark.parametrize(("heads", "prefix"), [(PRETRAINED, "module."), (("answers",), ""), (("nlvr",), "")])
def test_in_and_out_is_the_identity(heads: tuple[str, ...], prefix: str, tmp_path: Path) -> None:
    published = lxmert_names.to_published(model(*heads).state_dict())
    folder = imported(tmp_path, published)
    structure, rows = export_official(str(folder), tmp_path / "out.pth")
    assert structure.heads == heads
    assert rows[0].tensors == len(published)
    out = torch.load(tmp_path / "out.pth", weights_only=True)
    assert set(out) == {prefix + name for name in published}
    assert all(torch.equal(out[prefix + name], tensor) for name, tensor in published.items())
    if prefix:  # the tied tensor is stored once
        names = [prefix + lxmert_names.TIED, prefix + "bert.embeddings.word_embeddings.weight"]
        assert len({out[name].data_ptr() for name in names}) == 1
    with pytest.raises(UserError, match="exists already"):
        export_official(str(folder), tmp_path / "out.pth")


def test_a_model_for_retrieval_is_none_of_the_published_ones(tmp_path: Path) -> None:
    save_model(tmp_path / "model", model("itm"), TOKENIZER, card="")
    with pytest.raises(UserError, match=r"trained for itm, but no published LXMERT"):
        export_official(str(tmp_path / "model"), tmp_path / "out.pth")


def test_it_takes_no_images(tmp_path: Path) -> None:
    engine = Engine.load(imported(tmp_path, lxmert_names.to_published(model().state_dict())), quiet=True)
    with pytest.raises(UserError, match="its regions cannot be found"):
        engine.match([np.zeros((8, 8, 3), np.uint8)], ["a fox"])


def without(ending: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.endswith(ending)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda s: without("visn_fc.box_fc.bias", s), r"box_fc\.bias is missing"),
        (
            lambda s: without("word_embeddings.weight", s),
            r"not one of the published LXMERT models: .*word_embeddings",
        ),
        (
            lambda s: {n: t for n, t in s.items() if n.startswith("bert.")},
            "has no head of LXMERT's published models",
        ),
        (lambda s: s | {"bert.pooler.dense.bias": torch.zeros(3)}, r"pooler\.dense\.bias is \[3\] instead"),
        (lambda s: s | {"bert.pooler.dense.bias": torch.zeros(16, dtype=torch.int64)}, "holds torch.int64"),
        (
            lambda s: s | {lxmert_names.TIED: s[lxmert_names.TIED] + 1},
            r"decoder\.weight differs from bert\.embeddings\.word_embeddings\.weight, but in LXMERT they",
        ),
    ],
)
def test_damaged_files_are_refused(change: object, sentence: str, tmp_path: Path) -> None:
    assert callable(change)
    with pytest.raises(UserError, match=sentence):
        imported(tmp_path, change(lxmert_names.to_published(model().state_dict())))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"image_size": 224}, "--image-size means nothing"),
        ({"activation": "gelu"}, "--activation means nothing"),
        ({"tokenizer": None}, r"has \d+ word embeddings, but the tokenizer has 30522 tokens"),
        ({"heads": (3,)}, "attention heads do not divide|do not"),
    ],
)
def test_choices_that_do_not_fit_are_refused(more: dict[str, object], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        imported(tmp_path, lxmert_names.to_published(model().state_dict()), **more)


@pytest.mark.parametrize("heads", [PRETRAINED, ("answers",)])
def test_hugging_face_s_folder_goes_out_and_in_again(heads: tuple[str, ...], tmp_path: Path) -> None:
    own = model(*heads).state_dict()
    first = imported(tmp_path, lxmert_names.to_published(own))
    what, rows = export_to(str(first), "hugging-face", tmp_path / "hf")
    assert what == f"LXMERT, {KINDS[heads][0]}"
    stored = read_tensors(tmp_path / "hf" / "model.safetensors")
    expected = lxmert_names.to_published(own, lxmert_names.HUGGING_FACE)
    expected.pop(lxmert_names.TIED, None)  # which Hugging Face's classes tie themselves
    assert rows[0].tensors == len(stored)
    assert set(stored) == set(expected)
    assert all(torch.equal(stored[name], tensor) for name, tensor in expected.items())
    assert {row.part for row in rows} == {one.name for one in (tmp_path / "hf").iterdir()}
    import_checkpoint(tmp_path / "hf", tmp_path / "again")  # nothing has to be told
    again = tmp_path / "again"
    assert read_config(again / "config.json") == read_config(first / "config.json")
    assert all(torch.equal(t, own[name]) for name, t in read_tensors(again / "model.safetensors").items())


def test_the_configuration_says_what_hugging_face_s_classes_read(tmp_path: Path) -> None:
    export_to(
        str(imported(tmp_path, lxmert_names.to_published(model().state_dict()))),
        "hugging-face",
        tmp_path / "hf",
    )
    told = json.loads((tmp_path / "hf" / "config.json").read_text())
    expected = {
        "architectures": ["LxmertForPreTraining"],
        "hidden_size": 16,
        "num_attention_heads": 2,
        "l_layers": 1,
        "r_layers": 1,
        "x_layers": 2,
        "num_qa_labels": 4,
        "num_object_labels": 7,
        "num_attr_labels": 5,
        "visual_feat_dim": 6,
        "visual_pos_dim": 4,
    }
    assert {name: told[name] for name in expected} == expected


def test_hugging_face_has_no_class_for_two_images(tmp_path: Path) -> None:
    folder = imported(tmp_path, lxmert_names.to_published(model("nlvr").state_dict()))
    with pytest.raises(UserError, match=r"trained for nlvr, .*write it with --official"):
        export_to(str(folder), "hugging-face", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"hidden_act": "relu"}, "hidden_act: relu, which LXMERT as published does not have"),
        ({"num_attention_heads": 5}, "are 16 wide, which 5 attention heads do not divide"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(
    told: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    state = lxmert_names.to_published(model().state_dict(), lxmert_names.HUGGING_FACE)
    save_file({name: tensor.clone() for name, tensor in state.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"x_layers": 2} | told))
    with pytest.raises(UserError, match=sentence):
        import_checkpoint(tmp_path, tmp_path / "out")
