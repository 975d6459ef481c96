"""Published files of CLIP go in and come out, and files that are none end in a sentence."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import toy_clip
import toy_openai
from albef.config import SIZES, ModelConfig, UserError
from albef.exchange.clip_configs import NOTHING, hugging_face_config, open_clip_config
from albef.exchange.clip_files import (
    FORMS,
    ClipFile,
    config_of,
    load_clip,
    read_clip,
    resized,
    write_clip,
    write_openai,
)
from albef.peers.clip import CLIP
from albef.peers.clip_names import NAMINGS, to_published

HEADS = (toy_clip.CONFIG.image_heads, toy_clip.CONFIG.text_heads)  # of 8 and 6 channels, so no file tells
STATE = toy_clip.model().state_dict()
# What comes in obeys published code, which throws alpha away.
COME_IN = dataclasses.replace(toy_clip.CONFIG, transparent="dropped")


def published(**changes: Tensor) -> dict[str, Tensor]:
    """A state dict with OpenAI's names."""
    return to_published(STATE) | changes


def same(found: ClipFile, expected: dict[str, Tensor]) -> None:
    assert len(found.published) == len(to_published(expected, NAMINGS[found.naming]))
    for name, tensor in expected.items():
        assert found.weight(name).dtype == torch.float32
        assert torch.equal(found.weight(name), tensor.float()), name


@pytest.mark.parametrize("traced", [False, True], ids=["scripted", "traced"])
def test_openais_archive_computes_what_its_program_would(traced: bool, tmp_path: Path) -> None:
    model = toy_openai.published()
    ours = load_clip(toy_openai.save(model, tmp_path / "ViT.pt", traced), HEADS)
    assert ours.config == COME_IN
    pixels, ids = toy_clip.pixels(3), toy_clip.texts([1, 2], [3], [4, 5, 6, 7, 8, 9, 10, 11])
    with torch.no_grad():
        images, texts = model(pixels, ids)
        found = ours.encode_image(pixels), ours.encode_text(ids)
    assert found[1].mask is not None
    torch.testing.assert_close(ours.image_features(found[0].tokens), images)
    torch.testing.assert_close(ours.text_features(found[1].tokens, found[1].mask), texts)


def test_halves_come_in_as_fp32(tmp_path: Path) -> None:
    model = toy_openai.halved(toy_openai.published())
    found = read_clip(toy_openai.save(model, tmp_path / "ViT.pt"), HEADS)
    assert found.naming == "openai"
    assert {name.rpartition(".")[2] for name in found.left_out} == {
        *("input_resolution", "context_length", "vocab_size", "attn_mask")
    }
    expected = {n: t for n, t in model.state_dict().items() if n not in found.left_out}
    assert expected["visual.proj"].dtype == torch.float16
    out = to_published({name: found.weight(name) for name in STATE})
    assert set(out) == set(expected)
    assert all(torch.equal(out[name], tensor.float()) for name, tensor in expected.items())


def test_openais_names_come_out_again(tmp_path: Path) -> None:
    file = tmp_path / "out.pt"
    write_openai(file, STATE)
    written = torch.load(file, weights_only=True)
    assert set(written) == set(published())
    assert all(torch.equal(written[name], tensor) for name, tensor in published().items())
    same(read_clip(file, HEADS, "gelu"), STATE)
    with pytest.raises(UserError, match="exists already"):
        write_openai(file, STATE)


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("form", FORMS)
def test_a_folder_comes_back_without_being_told_anything(form: str, activation: str, tmp_path: Path) -> None:
    model = toy_clip.model(config=toy_clip.ModelConfig(**{**vars(toy_clip.CONFIG), "activation": activation}))
    write_clip(tmp_path / "out", model.state_dict(), model.config, form)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {*FORMS[form].files} - {"tokenizer.json"}
    written = load_file(tmp_path / "out" / FORMS[form].weights)
    expected = to_published(model.state_dict(), FORMS[form].naming)
    assert set(written) == set(expected)
    assert all(torch.equal(written[name], tensor) for name, tensor in expected.items())
    found = read_clip(tmp_path / "out")
    assert found.config == dataclasses.replace(model.config, transparent="dropped")
    assert NAMINGS[found.naming] == FORMS[form].naming
    same(found, model.state_dict())


def test_a_model_for_larger_images(tmp_path: Path) -> None:
    write_clip(tmp_path / "out", STATE, toy_clip.CONFIG, "open-clip")
    found = resized(read_clip(tmp_path / "out"), 32)
    model = CLIP(found.config)
    model.load_state_dict({name: found.weight(name) for name in STATE})
    assert model.encode_image(torch.zeros(1, 3, 32, 32)).tokens.shape == (1, 17, 16)
    assert resized(found, 32) == found
    for size in (0, 4, 20):
        with pytest.raises(UserError, match="multiple of 8"):
            resized(found, size)


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("size", [size for size in SIZES if size.startswith("clip-vit")])
def test_published_sizes_are_named(size: str, naming: str) -> None:
    assert sizes_of(SIZES[size], naming) == dataclasses.replace(SIZES[size], transparent="dropped")


def sizes_of(config: ModelConfig, naming: str = "openai") -> ModelConfig:
    """What the shapes of such a model show."""
    with torch.device("meta"):
        state = to_published(CLIP(config).state_dict(), NAMINGS[naming])
    return config_of(state, NAMINGS[naming], (), NOTHING, "quick_gelu", Path("model.pt"))


def test_other_sizes_have_the_nearest_name() -> None:
    large = SIZES["clip-vit-l-14"]
    huge = dataclasses.replace(large, image_width=1280, image_heads=20, text_width=1024, text_heads=16)
    for config, size in (
        (huge, "clip-vit-l-14"),
        (dataclasses.replace(large, image_size=280), "clip-vit-l-14"),
    ):
        found = sizes_of(config)
        assert found.size == size
        assert found == dataclasses.replace(config, transparent="dropped")
        label = ClipFile(found, "openai", NOTHING, {}, []).size_label()
        assert label == f"of no published size (nearest: {size})"
    assert ClipFile(large, "openai", NOTHING, {}, []).size_label() == "clip-vit-l-14"


def test_a_training_checkpoint_of_open_clips(tmp_path: Path) -> None:
    state = {f"module.{name}": tensor for name, tensor in published().items()}
    state["module.logit_scale"] = state["module.logit_scale"].reshape(1)
    content = {"epoch": 3, "name": "run", "state_dict": state, "optimizer": {"state": {}, "param_groups": []}}
    torch.save(content, tmp_path / "epoch_3.pt")
    same(read_clip(tmp_path / "epoch_3.pt", HEADS, "gelu"), STATE)


def test_old_files_of_hugging_faces_hold_numbers_of_positions(tmp_path: Path) -> None:
    state = to_published(STATE, NAMINGS["hugging-face"])
    state["text_model.embeddings.position_ids"] = torch.arange(10)[None]
    torch.save(state, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps(hugging_face_config(toy_clip.CONFIG)))
    found = read_clip(tmp_path)
    assert found.left_out == ["text_model.embeddings.position_ids"]
    same(found, STATE)


def test_the_activation_is_never_guessed(tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "model.pt")
    with pytest.raises(UserError, match="quick_gelu or gelu"):
        read_clip(tmp_path / "model.pt", HEADS)
    with pytest.raises(UserError, match="quick_gelu or gelu"):
        read_clip(tmp_path / "model.pt", HEADS, "relu")  # type: ignore[arg-type]


CHANGED = {
    "RN50": ({"visual.layer1.0.conv1.weight": torch.ones(2)}, "ResNet"),
    "no CLIP": ({"token_embedding.weight": None, "fc.weight": torch.ones(2)}, "not a CLIP model"),
    "a layer too few": ({"transformer.resblocks.0.ln_1.bias": None}, "ln_1.bias is missing"),
    "a part too many": ({"logit_bias": torch.ones(1)}, "logit_bias is no part of CLIP"),
    "another shape": ({"ln_final.bias": torch.ones(3)}, r"ln_final.bias is \[3\] instead of \[12\]"),
    "no square": ({"visual.positional_embedding": torch.ones(6, 16)}, "no CLIP's with a ViT"),
    "no class token": ({"visual.positional_embedding": torch.ones(0, 16)}, "no CLIP's with a ViT"),
    "a vector": ({"text_projection": torch.ones(12)}, "no CLIP's with a ViT"),
    "no patches": ({"visual.conv1.weight": None}, "conv1.weight is missing"),
    "integers": ({"ln_final.bias": torch.ones(12, dtype=torch.long)}, "holds torch.int64"),
    "a tensor repeated": ({"ln_final.bias": torch.ones(1).expand(12)}, "more than the file holds"),
    "a sparse tensor": ({"ln_final.bias": torch.ones(12).to_sparse()}, "no plain tensor"),
}


@pytest.mark.parametrize(("changes", "problem"), CHANGED.values(), ids=CHANGED)
def test_other_models_are_refused(changes: dict[str, Tensor | None], problem: str, tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in (published() | changes).items() if tensor is not None}
    torch.save(state, tmp_path / "model.pt")
    with pytest.raises(UserError, match=problem) as refused:
        read_clip(tmp_path / "model.pt", HEADS, "gelu")
    assert str(refused.value).startswith(str(tmp_path / "model.pt"))


@pytest.mark.parametrize("heads", [(3,), (2, 5), (0,), (2, 2, 2)])
def test_heads_that_do_not_divide_the_width(heads: tuple[int, ...], tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "model.pt")
    with pytest.raises(UserError, match="heads"):
        read_clip(tmp_path / "model.pt", heads, "gelu")


def test_heads_are_64_wide_unless_said(tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "model.pt")
    with pytest.raises(UserError, match="16 wide"):
        read_clip(tmp_path / "model.pt", (), "gelu")


OPEN_CLIP, HUGGING_FACE = open_clip_config(toy_clip.CONFIG), hugging_face_config(toy_clip.CONFIG)
CONFIGS = {
    "mean instead of class token": ("vision_cfg", "pool_type", "avg"),
    "no causal mask": ("text_cfg", "no_causal_mask", True),
    "another tokenizer": ("text_cfg", "hf_tokenizer_name", "bert-base-uncased"),
    "another epsilon": ("vision_config", "layer_norm_eps", 1e-6),
    "another activation": ("text_config", "hidden_act", "gelu_new"),
    "two activations": ("text_config", "hidden_act", "gelu"),
}


@pytest.mark.parametrize(("part", "key", "value"), CONFIGS.values(), ids=CONFIGS)
def test_settings_under_which_the_weights_compute_something_else(
    part: str, key: str, value: object, tmp_path: Path
) -> None:
    form = "hugging-face" if part.endswith("config") else "open-clip"
    write_clip(tmp_path / "model", STATE, toy_clip.CONFIG, form)
    file = tmp_path / "model" / next(iter(FORMS[form].configs))
    content = json.loads(file.read_text())
    content.get("model_cfg", content)[part][key] = value
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=key):
        read_clip(tmp_path / "model")


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000, '{"model_cfg": 3}', "{}"])
def test_a_configuration_that_is_none(content: str, tmp_path: Path) -> None:
    write_clip(tmp_path / "model", STATE, toy_clip.CONFIG, "open-clip")
    (tmp_path / "model" / "open_clip_config.json").write_text(content)
    with pytest.raises(UserError, match=r"not a JSON object|quick_gelu or gelu"):
        read_clip(tmp_path / "model", HEADS)


def test_no_file_and_no_model(tmp_path: Path) -> None:
    for place in (tmp_path / "absent.pt", tmp_path):
        with pytest.raises(UserError):
            read_clip(place)
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(UserError, match=r"model\.pt"):
        read_clip(tmp_path)
