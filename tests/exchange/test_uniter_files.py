"""Published files of UNITER become model directories, and come back."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import toy
import toy_uniter
from albef.config import UserError
from albef.exchange.choices import Choices
from albef.exchange.exporting import export_official
from albef.exchange.importing import import_checkpoint
from albef.exchange.uniter_files import KINDS, uniter_of
from albef.model_config import SIZES
from albef.model_directory import read_config, read_tensors, save_model
from albef.peers import uniter_names
from albef.peers.uniter import PRETRAINING
from albef.peers.uniter_text import CasedTokenizer

TOKENIZER = CasedTokenizer.train(toy.CAPTIONS, 120)
CONFIG = dataclasses.replace(toy_uniter.CONFIG, vocab_size=TOKENIZER.vocab_size)
PUBLISHED = {
    "pretraining": PRETRAINING,
    "retrieval": ("itm", "rank"),
    "vqa": ("answers",),
    "ve": ("entailment",),
    "nlvr2_triplet": ("triplet",),
    "nlvr2_paired": ("paired",),
    "nlvr2_paired_attn": ("paired_attention",),
}


def published(heads: tuple[str, ...] = PRETRAINING) -> dict[str, Tensor]:
    return uniter_names.to_published(toy_uniter.model(heads, config=CONFIG).state_dict())


def vocabulary(folder: Path) -> Path:
    """The tokens as a `vocab.txt`."""
    pieces = TOKENIZER.pieces(range(TOKENIZER.vocab_size))
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")
    return folder / "vocab.txt"


def imported(folder: Path, state: dict[str, Tensor], **more: object) -> Path:
    """The model directory that a file with this state dict becomes."""
    torch.save(state, folder / "published.pt")
    choices = Choices(heads=(2,), tokenizer=vocabulary(folder))._replace(**more)
    import_checkpoint(folder / "published.pt", folder / "model", choices)
    return folder / "model"


@pytest.mark.parametrize("heads", KINDS)
def test_the_same_weights_come_back(heads: tuple[str, ...], tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in published(heads).items()}
    for alias in uniter_names.UNITER.tied:
        state.pop(alias, None)  # a file may lack second names
    folder = imported(tmp_path, state)
    config, found = read_config(folder / "config.json")
    assert found == heads
    assert (config.fusion_depth, config.region_width, config.text_heads) == (2, 10, 2)
    assert (config.append_sep, config.max_tokens) == (True, 12)
    weights = read_tensors(folder / "model.safetensors")
    own = toy_uniter.model(heads, config=CONFIG).state_dict()
    assert all(torch.equal(weights[name], tensor.half().float()) for name, tensor in own.items())
    tokens = CasedTokenizer.load(folder / "tokenizer.json").encode(toy.CAPTIONS[0], 9, True)
    assert tokens.tolist() == TOKENIZER.encode(toy.CAPTIONS[0], 9, True).tolist()


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes_are_recognised(name: str) -> None:
    names = json.loads((Path(__file__).parent.parent / "golden" / "uniter-names.json").read_text())
    with torch.device("meta"):
        state = {part: torch.empty(shape) for part, shape in names[name].items()}
    for alias in uniter_names.UNITER.tied:
        state.pop(alias, None)  # which could not be compared
    found = uniter_of(state, (), Path("file.pt"))
    assert (found.config, found.heads) == (SIZES["uniter-base"], PUBLISHED[name])


def test_the_oldest_names_of_norms_are_read(tmp_path: Path) -> None:
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in published().items()
    }
    assert (imported(tmp_path, state) / "model.safetensors").is_file()


def without(ending: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {name: tensor for name, tensor in state.items() if not name.endswith(ending)}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("pos_linear.bias"), r"pos_linear\.bias is missing"),
        (
            without("word_embeddings.weight"),
            r"not one of the published UNITER models: .*word_embeddings",
        ),
        (
            lambda s: {n: t for n, t in s.items() if n.startswith("uniter.")},
            "has no head of UNITER's published models",
        ),
        (lambda s: s | {"itm_output.bias": torch.zeros(3)}, r"itm_output\.bias is \[3\] instead"),
        (lambda s: s | {"itm_output.bias": torch.zeros(2, dtype=torch.int64)}, "holds torch.int64"),
        (lambda s: s | {"feat_regress.weight": s["feat_regress.weight"] + 1}, "differs from uniter"),
    ],
)
def test_damaged_files_are_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        imported(tmp_path, change(published()))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"tokenizer": None}, r"vocabulary is not part of this library.*--tokenizer vocab\.txt"),
        ({"image_size": 224}, "--image-size means nothing"),
        ({"heads": (3,)}, "divi"),
    ],
)
def test_choices_that_do_not_fit_are_refused(more: dict[str, object], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        imported(tmp_path, published(), **more)


def test_a_list_of_other_answers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "answers.json").write_text(json.dumps(["yes", "no"]))
    with pytest.raises(UserError, match=r"lists 2 answers, but published\.pt scores 5"):
        imported(tmp_path, published(("answers",)), answers=tmp_path / "answers.json")


@pytest.mark.parametrize("heads", KINDS)
def test_in_and_out_is_the_identity(heads: tuple[str, ...], tmp_path: Path) -> None:
    given = published(heads)
    structure, rows = export_official(str(imported(tmp_path, given)), tmp_path / "out.pt")
    assert structure.heads == heads
    assert rows[0].tensors == len(given)
    out = torch.load(tmp_path / "out.pt", weights_only=True)
    assert set(out) == set(given)
    assert all(torch.equal(out[name], tensor) for name, tensor in given.items())


def test_a_model_of_matching_alone_is_none_of_the_published_ones(tmp_path: Path) -> None:
    save_model(tmp_path / "model", toy_uniter.model(("itm",), config=CONFIG), TOKENIZER, card="")
    with pytest.raises(UserError, match=r"trained for itm, but no published UNITER"):
        export_official(str(tmp_path / "model"), tmp_path / "out.pt")
