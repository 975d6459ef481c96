"""Published checkpoints of OSCAR become model directories, and come back as folders."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import toy
import toy_oscar
from albef.config import UserError
from albef.data.text import Tokenizer
from albef.exchange.choices import Choices
from albef.exchange.exporting import export_official, export_to
from albef.exchange.importing import import_checkpoint
from albef.exchange.oscar_files import KINDS, oscar_of
from albef.model_config import SIZES, ModelConfig
from albef.model_directory import read_config, read_tensors, read_trained, save_model
from albef.peers import oscar_names

TOKENIZER = Tokenizer.train(toy.CAPTIONS, 120)
CONFIG = dataclasses.replace(
    toy_oscar.CONFIG,
    vocabulary="trained",
    vocab_size=TOKENIZER.vocab_size,
    pair_head_scale=2,
)
PLAIN = dataclasses.replace(CONFIG, size="oscar-base", region_norm=False, pollution_classes=2)
PRETRAINED = ("mlm", "pollution")


def published(heads: tuple[str, ...] = PRETRAINED, config: ModelConfig = CONFIG) -> dict[str, Tensor]:
    return oscar_names.to_published(toy_oscar.model(*heads, config=config).state_dict(), config)


def folder_of(place: Path, state: dict[str, Tensor], **more: object) -> Path:
    """A folder as the published scripts write it, with these settings in its configuration."""
    place.mkdir()
    torch.save(state, place / "pytorch_model.bin")
    told = {"img_feature_dim": CONFIG.region_width + 6, "num_attention_heads": 2, "hidden_act": "gelu"} | more
    (place / "config.json").write_text(json.dumps(told))
    pieces = TOKENIZER.pieces(range(TOKENIZER.vocab_size))
    (place / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")
    return place


def imported(folder: Path, state: dict[str, Tensor], **more: object) -> Path:
    """The model directory that a folder with this state dict becomes."""
    import_checkpoint(folder_of(folder / "published", state, **more), folder / "model")
    return folder / "model"


@pytest.mark.parametrize("config", [CONFIG, PLAIN], ids=["plus", "plain"])
@pytest.mark.parametrize("heads", KINDS)
def test_the_same_weights_come_back(heads: tuple[str, ...], config: ModelConfig, tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in published(heads, config).items()}
    state.pop("cls.predictions.decoder.weight", None)  # a file may lack second names
    folder = imported(tmp_path, state, use_img_layernorm=int(config.region_norm))
    found, own_heads = read_config(folder / "config.json")
    assert own_heads == heads
    assert (found.fusion_depth, found.region_width, found.text_heads) == (2, 5, 2)
    assert (found.append_sep, found.region_norm, found.vocabulary) == (True, config.region_norm, "trained")
    weights = read_tensors(folder / "model.safetensors")
    own = toy_oscar.model(*heads, config=config).state_dict()
    assert set(weights) == set(own)
    assert all(torch.equal(weights[name], tensor.half().float()) for name, tensor in own.items())
    text = TOKENIZER.encode(toy.CAPTIONS[0], 9, True)
    assert (
        Tokenizer.load(folder / "tokenizer.json").encode(toy.CAPTIONS[0], 9, True).tolist() == text.tolist()
    )
    trained = read_trained(folder / "config.json")
    assert trained is not None
    assert (trained.task, trained.data) == (KINDS[heads].task, "pytorch_model.bin")


@pytest.mark.parametrize(
    ("name", "size", "heads", "more"),
    [
        ("oscar/pretraining", "oscar-base", PRETRAINED, {}),
        ("oscar/pretraining_plus", "oscar-plus-base", PRETRAINED, {}),
        ("oscar/retrieval", "oscar-plus-base", ("itm",), {"max_tokens": 70}),
        ("oscar/vqa", "oscar-plus-base", ("answers",), {"max_tokens": 128}),
        ("oscar/gqa", "oscar-plus-base", ("answers",), {"max_tokens": 128, "num_answers": 1853}),
        ("oscar/nlvr2", "oscar-plus-base", ("nlvr",), {"max_tokens": 55}),
    ],
)
def test_the_published_sizes_are_recognised(
    name: str, size: str, heads: tuple[str, ...], more: dict[str, int]
) -> None:
    names = json.loads((Path(__file__).parent.parent / "golden" / "oscar-names.json").read_text())
    with torch.device("meta"):
        state = {part: torch.empty(shape) for part, shape in names[name].items()}
    state.pop("cls.predictions.decoder.weight", None)  # which could not be compared
    found = oscar_of(state, (), Path("file.bin"), {})
    assert (found.config, found.heads) == (dataclasses.replace(SIZES[size], **more), heads)


def test_a_large_model_is_recognised() -> None:
    config = SIZES["oscar-large"]
    with torch.device("meta"):
        state = oscar_names.to_published(toy_oscar.OSCAR(config).state_dict(), config)
    del state["cls.predictions.decoder.weight"]
    assert oscar_of(state, (), Path("file.bin"), {}).config == config


def test_the_oldest_names_of_norms_are_read(tmp_path: Path) -> None:
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in published().items()
    }
    assert (imported(tmp_path, state) / "model.safetensors").is_file()


def test_a_file_without_its_folder_is_told_the_rest(tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "oscar.bin")
    TOKENIZER.save(tmp_path / "own.json", CONFIG)
    _, rows = import_checkpoint(
        tmp_path / "oscar.bin", tmp_path / "model", Choices(heads=(3,), tokenizer=tmp_path / "own.json")
    )
    assert read_config(tmp_path / "model" / "config.json")[0].text_heads == 3
    assert ("assumed", "heads", None, "3 in each layer") in rows


def test_the_configuration_of_another_model_in_the_folder_says_nothing(tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "oscar.bin")
    (tmp_path / "config.json").write_text(json.dumps({"num_attention_heads": 3, "hidden_act": "relu"}))
    TOKENIZER.save(tmp_path / "own.json", CONFIG)
    choices = Choices(heads=(2,), tokenizer=tmp_path / "own.json")
    import_checkpoint(tmp_path / "oscar.bin", tmp_path / "model", choices)
    assert read_config(tmp_path / "model" / "config.json")[0].text_heads == 2


def test_what_lies_beside_it_is_not_opened(tmp_path: Path) -> None:
    """Published folders hold a pickle of the script's arguments."""
    place = folder_of(tmp_path / "published", published())
    (place / "training_args.bin").write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    (place / "optimizer.pth").write_bytes(b"?")
    import_checkpoint(place, tmp_path / "model")
    assert sorted(one.name for one in (tmp_path / "model").iterdir()) == [
        *("README.md", "config.json", "manifest.json", "model.safetensors", "tokenizer.json"),
    ]


def without(ending: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {name: tensor for name, tensor in state.items() if not name.endswith(ending)}


TIED = "cls.predictions.decoder.weight"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (without("bert.pooler.dense.bias"), r"pooler\.dense\.bias is missing"),
        (
            without("word_embeddings.weight"),
            r"not one of the published OSCAR models.*no matrix bert\.embeddings",
        ),
        (lambda s: {n: t for n, t in s.items() if n.startswith("bert.")}, "has no head of OSCAR's published"),
        (lambda s: s | {"cls.seq_relationship.bias": torch.zeros(2)}, r"relationship\.bias is \[2\] instead"),
        (lambda s: s | {"bert.pooler.dense.bias": torch.zeros(12, dtype=torch.int64)}, "holds torch.int64"),
        (lambda s: s | {TIED: s[TIED] + 1}, "differs from bert.embeddings"),
        (
            lambda s: s | {"cls.seq_relationship.weight": torch.zeros(5, 12)},
            r"\[5, 12\] instead of \[3, 12\]",
        ),
    ],
)
def test_damaged_files_are_refused(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        imported(tmp_path, change(published()))


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        ({"hidden_act": "relu"}, "hidden_act: relu, which OSCAR as published does not have"),
        ({"layer_norm_eps": 1e-5}, "layer_norm_eps: 1e-05, which"),
        ({"img_layer_norm_eps": 1e-6}, "img_layer_norm_eps: 1e-06, which"),
        ({"img_feature_type": "dis_code_t"}, "img_feature_type: dis_code_t, which"),
        (
            {"use_img_layernorm": 0},
            r"says use_img_layernorm: 0, but bert\.LayerNorm\.weight is in it\. Take both",
        ),
        ({"num_attention_heads": 5}, "are 12 wide, which 5 attention heads do not divide"),
        ({"num_attention_heads": "2"}, "which '2' attention heads do not"),
        ({"num_attention_heads": 0}, "which 0 attention heads do not"),
        ({"num_attention_heads": None}, "are 12 wide, which is no multiple of 64; say"),
    ],
)
def test_configurations_that_do_not_fit_are_refused(
    told: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        imported(tmp_path, published(), **told)


def test_a_norm_that_the_file_lacks_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"use_img_layernorm: 1, but bert\.LayerNorm\.weight is missing"):
        imported(tmp_path, published(config=PLAIN), use_img_layernorm=1)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"image_size": 224}, "--image-size means nothing"),
        ({"append_sep": True}, "--append-sep means nothing"),
        ({"activation": "gelu"}, "--activation means nothing"),
        ({"heads": (5,)}, "attention heads do not divide"),
        ({"heads": (2, 3)}, "all its layers have as many attention heads"),
    ],
)
def test_choices_that_do_not_fit_are_refused(more: dict[str, object], sentence: str, tmp_path: Path) -> None:
    place = folder_of(tmp_path / "published", published())
    with pytest.raises(UserError, match=sentence):
        import_checkpoint(place, tmp_path / "model", Choices()._replace(**more))


def test_a_vocabulary_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "published", published())
    (place / "vocab.txt").unlink()
    with pytest.raises(UserError, match=r"has \d+ word embeddings, but the tokenizer has 30522 tokens"):
        import_checkpoint(place, tmp_path / "model")


def test_a_vocabulary_with_a_token_twice_is_refused(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "published", published())
    with (place / "vocab.txt").open("a") as file:
        file.write("[PAD]\n")
    with pytest.raises(UserError, match=r"vocab\.txt: '\[PAD\]' is in it twice"):
        import_checkpoint(place, tmp_path / "model")


def test_answers_lie_beside_the_model(tmp_path: Path) -> None:
    place = folder_of(tmp_path / "published", published(("answers",)))
    names = [str(number) for number in range(CONFIG.num_answers)]
    (tmp_path / "answers.json").write_text(json.dumps(names))
    import_checkpoint(place, tmp_path / "model", Choices(answers=tmp_path / "answers.json"))
    assert json.loads((tmp_path / "model" / "answers.json").read_text()) == names
    (tmp_path / "answers.json").write_text(json.dumps(["yes"]))
    with pytest.raises(UserError, match=r"lists 1 answers, but pytorch_model\.bin scores 7"):
        import_checkpoint(place, tmp_path / "other", Choices(answers=tmp_path / "answers.json"))
    place = folder_of(tmp_path / "retrieval", published(("itm",)))
    with pytest.raises(UserError, match="scores no answers from a list; leave --answers out"):
        import_checkpoint(place, tmp_path / "other", Choices(answers=tmp_path / "answers.json"))


@pytest.mark.parametrize("config", [CONFIG, PLAIN], ids=["plus", "plain"])
@pytest.mark.parametrize("heads", KINDS)
def test_in_and_out_is_the_identity(heads: tuple[str, ...], config: ModelConfig, tmp_path: Path) -> None:
    given = published(heads, config)
    model = imported(tmp_path, given)
    what, rows = export_to(str(model), "pytorch-transformers", tmp_path / "out")
    assert what == f"OSCAR, {KINDS[heads].what}"
    assert [(row.part, row.tensors) for row in rows] == [
        ("pytorch_model.bin", len(given)),
        ("config.json", None),
        ("vocab.txt", None),
    ]
    out = torch.load(tmp_path / "out" / "pytorch_model.bin", weights_only=True)
    assert set(out) == set(given)
    assert all(torch.equal(out[name], tensor) for name, tensor in given.items())
    vocabulary = (tmp_path / "published" / "vocab.txt").read_text()
    assert (tmp_path / "out" / "vocab.txt").read_text() == vocabulary
    import_checkpoint(tmp_path / "out", tmp_path / "again")  # nothing has to be told
    first, again = (read_config(one / "config.json") for one in (model, tmp_path / "again"))
    assert first == again


def test_the_configuration_says_what_the_published_scripts_read(tmp_path: Path) -> None:
    export_to(str(imported(tmp_path, published(("nlvr",)))), "pytorch-transformers", tmp_path / "out")
    told = json.loads((tmp_path / "out" / "config.json").read_text())
    expected = {
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "vocab_size": TOKENIZER.vocab_size,
        "img_feature_dim": 11,
        "use_img_layernorm": 1,
        "num_labels": 2,
        "num_choice": 2,
        "classifier": "mlp",
        "cls_hidden_scale": 2,
    }
    assert {name: told[name] for name in expected} == expected


def test_an_export_replaces_its_own_folder_alone(tmp_path: Path) -> None:
    model = str(imported(tmp_path, published()))
    for _ in range(2):
        export_to(model, "pytorch-transformers", tmp_path / "out")
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(UserError, match=r"notes\.txt"):
        export_to(model, "pytorch-transformers", tmp_path / "out")


def test_only_its_own_form_is_written(tmp_path: Path) -> None:
    model = str(imported(tmp_path, published()))
    with pytest.raises(UserError, match=r"system oscar, but --official .* write it with --to pytorch-trans"):
        export_official(model, tmp_path / "out.pth")
    with pytest.raises(
        UserError, match=r"system oscar, but --to hugging-face is for models of system clip and lxmert"
    ):
        export_to(model, "hugging-face", tmp_path / "out")


def test_a_model_with_two_heads_is_none_of_the_published_ones(tmp_path: Path) -> None:
    save_model(tmp_path / "model", toy_oscar.model("itm", "answers", config=CONFIG), TOKENIZER, card="")
    with pytest.raises(UserError, match=r"trained for itm, answers, but no published OSCAR"):
        export_to(str(tmp_path / "model"), "pytorch-transformers", tmp_path / "out")
    assert not (tmp_path / "out").exists()
