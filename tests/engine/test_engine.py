"""The engine: model directories written and read back, encodings, matching, masked words."""

import dataclasses
import json
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from PIL import Image
from safetensors.torch import load_file, save_file

import toy
from albef import model_directory
from albef.config import ModelConfig, UserError
from albef.data.images import BadImage
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.model.albef import ALBEF
from albef.model_directory import save_model

CAPTIONS = ["a fox on grass", "two red cars in the snow", "a small tree left of a large house"]
# A vocabulary of more than the tokenizer has.
TOY = dataclasses.replace(toy.ENGINE_MODEL, max_tokens=12)


@pytest.fixture
def model() -> ALBEF:
    torch.manual_seed(0)
    return ALBEF(TOY)


@pytest.fixture
def folder(model: ALBEF, tmp_path: Path) -> Path:
    save_model(tmp_path / "toy", model, Tokenizer.train(CAPTIONS, 100), "# Toy")
    return tmp_path / "toy"


@pytest.fixture
def engine(folder: Path) -> Engine:
    return Engine.load(folder, device="cpu")


def pictures(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(np.random.default_rng(seed).integers(0, 256, (count, 20, 30, 3), dtype=np.uint8))


def test_a_saved_model_loads_as_it_was(model: ALBEF, folder: Path) -> None:
    engine = Engine.load(folder, device="cpu")
    assert engine.config == model.config
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(engine.model.state_dict()[name], tensor, rtol=0, atol=0)
    assert not engine.model.training
    assert engine.temperature == pytest.approx(0.07)
    assert (folder / "README.md").read_text() == "# Toy"
    stored = json.loads((folder / "config.json").read_text())
    assert stored["format_version"] == 1
    assert stored["resize"] == "bicubic-antialiased-stretch"
    assert stored["heads"] == ["contrast", "itm", "mlm"]
    assert {field.name for field in dataclasses.fields(ModelConfig)} <= set(stored)


def test_a_run_folder_stands_for_its_model(folder: Path) -> None:
    (folder.parent / "run").mkdir()
    folder.rename(folder.parent / "run" / "model")
    engine = Engine.load(folder.parent / "run")
    assert Engine.load(engine.name).fingerprint == engine.fingerprint


def test_saving_again_replaces_the_model(model: ALBEF, folder: Path) -> None:
    before = Engine.load(folder, device="cpu").fingerprint
    with torch.no_grad():
        model.itm_head.weight.add_(1)
    save_model(folder, model, Tokenizer.train(CAPTIONS, 100), "# Newer")
    assert Engine.load(folder, device="cpu").fingerprint != before
    assert [entry.name for entry in folder.parent.iterdir()] == ["toy"]


def test_what_is_no_model_is_never_overwritten(model: ALBEF, tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").write_bytes(b"dear")
    with pytest.raises(UserError, match=r"holds holiday\.jpg"):
        save_model(tmp_path, model, Tokenizer.train(CAPTIONS, 100), "")
    assert (tmp_path / "holiday.jpg").read_bytes() == b"dear"


def test_a_model_without_heads(tmp_path: Path) -> None:
    save_model(tmp_path / "clip", ALBEF(TOY, heads=("contrast",)), Tokenizer.train(CAPTIONS, 100), "")
    engine = Engine.load(tmp_path / "clip", device="cpu")
    assert not engine.can_match
    with pytest.raises(UserError, match="without image–text matching"):
        engine.match(pictures(1), ["a fox"])
    with pytest.raises(UserError, match="without masked words"):
        engine.fill_mask("a [MASK]", pictures(1)[0])


def test_features_have_unit_length_and_do_not_depend_on_the_batch(engine: Engine) -> None:
    images, texts = pictures(5), [*CAPTIONS, "fox", "a car"]
    for features, alone in (
        (engine.encode_images(images, batch_size=3), [engine.encode_images([image]) for image in images]),
        (engine.encode_texts(texts, batch_size=2), [engine.encode_texts([text]) for text in texts]),
    ):
        assert features.shape == (5, 8)
        assert features.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1, rtol=1e-5)
        np.testing.assert_allclose(features, np.concatenate(alone), atol=1e-5)
    assert engine.encode_images([]).shape == engine.encode_texts([]).shape == (0, 8)


def test_a_file_is_read_as_its_pixels(engine: Engine, tmp_path: Path) -> None:
    image = pictures(1)[0]
    Image.fromarray(image).save(tmp_path / "a.png")
    np.testing.assert_allclose(
        engine.encode_images([tmp_path / "a.png"]), engine.encode_images([image]), atol=1e-6
    )


def test_bad_pictures_raise_or_are_noted(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"nothing like a picture")
    images = [pictures(1)[0], tmp_path / "broken.png", pictures(1, seed=1)[0]]
    with pytest.raises(BadImage, match=r"broken\.png"):
        engine.encode_images(images)
    bad: dict[int, BadImage] = {}
    assert len(engine.encode_images(images, batch_size=1, bad=bad)) == 2
    assert list(bad) == [1]


def test_match_is_the_softmax_of_the_models_logits(engine: Engine) -> None:
    images, texts = pictures(4), [*CAPTIONS, "fox"]
    expected = []
    for image, text in zip(images, texts, strict=True):
        with torch.no_grad():
            tokens, mask = engine.model.encode_text(*engine.text_tokens([text]))[:2]
            memory = engine.model.image_memory(engine.model.encode_image(engine.visual([image])))
            expected.append(float(engine.model.match(tokens, mask, memory).softmax(1)[0, 1]))
    np.testing.assert_allclose(engine.match(images, texts, batch_size=3), expected, atol=1e-6)
    with pytest.raises(UserError, match="4 images and 1 texts"):
        engine.match(images, ["a fox"])


def test_texts_are_cleaned_and_cannot_be_special(engine: Engine) -> None:
    ids, mask = engine.text_tokens(["A Fox, on GRASS!", "a fox on grass", "[MASK] [SEP] [CLS] [PAD]"])
    assert ids[0].tolist() == ids[1].tolist()
    specials = {engine.tokenizer.mask_id, engine.tokenizer.sep_id, engine.tokenizer.pad_id}
    assert not specials & set(ids[2][mask[2]].tolist())
    assert (ids[:, 0] == engine.tokenizer.cls_id).all()
    assert ids.shape[1] <= TOY.max_tokens


def test_fill_mask_ranks_pieces_for_every_mask(engine: Engine) -> None:
    filled = engine.fill_mask("a [MASK] on [MASK] [SEP]", pictures(1)[0], k=4)
    assert [len(candidates) for candidates in filled] == [4, 4]
    for candidates in filled:
        chances = [chance for _, chance in candidates]
        assert chances == sorted(chances, reverse=True)
        assert 0 < sum(chances) <= 1
        assert not any(piece.startswith("[") and len(piece) > 1 for piece, _ in candidates)
    everything = engine.fill_mask("[MASK]", pictures(1)[0], k=10_000)[0]
    assert len(everything) == engine.tokenizer.vocab_size - 5
    assert {piece for piece, _ in everything} >= {"fox", "grass"}
    with pytest.raises(UserError, match="has no"):
        engine.fill_mask("a [mask]", pictures(1)[0])
    with pytest.raises(UserError, match="the limit is 12"):
        engine.fill_mask("a fox on grass " * 5 + "[MASK]", pictures(1)[0])


def test_fill_mask_reads_the_picture(engine: Engine) -> None:
    black, white = (np.full((16, 16, 3), value, np.uint8) for value in (0, 255))
    assert engine.fill_mask("a [MASK]", black) != engine.fill_mask("a [MASK]", white)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_lacking_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"no {name}"):
        Engine.load(folder)


def test_a_half_copied_file_is_an_error_in_words(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model.safetensors has \d+ bytes instead of"):
        Engine.load(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        Engine.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        Engine.load(folder)


def test_weights_that_do_not_fit_are_named(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["itm_head.weight"] = torch.zeros(3, 16)
    weights["extra"] = weights.pop("image_encoder.norm.bias")
    save_file(weights, folder / "model.safetensors")
    (folder / "manifest.json").unlink()
    with pytest.raises(UserError) as error:
        Engine.load(folder)
    for part in ("image_encoder.norm.bias is missing", "extra is unknown", "is [3, 16] instead of [2, 16]"):
        assert part in str(error.value)


def test_a_model_saved_before_a_setting_was_there_is_as_published(folder: Path) -> None:
    stored = json.loads((folder / "config.json").read_text())
    assert not stored.pop("fuse_placed_patches")
    (folder / "config.json").write_text(json.dumps(stored))
    assert not Engine.load(folder).config.fuse_placed_patches
    del stored["image_depth"]
    (folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"lacks image_depth. Save the model again"):
        Engine.load(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version is 2"),
        ({"resize": "nearest"}, "resize is 'nearest'"),
        ({"image_widht": 3}, "unknown key image_widht. Did you mean image_width"),
        ({"image_size": 17}, "not divisible"),
        ({"image_size": "big"}, "image_size is .big., but it must be a whole number"),
        ({"vocab_size": 20}, "tokens, but the model has only 20"),
    ],
)
def test_a_config_that_cannot_be_used(folder: Path, change: dict[str, object], message: str) -> None:
    stored = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(stored | change))
    with pytest.raises(UserError, match=message):
        Engine.load(folder)


def test_half_precision_weights_are_computed_with_in_fp32(engine: Engine, folder: Path) -> None:
    weights = {name: tensor.half() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors")
    (folder / "manifest.json").unlink()
    halved = Engine.load(folder, device="cpu")
    assert {parameter.dtype for parameter in halved.model.parameters()} == {torch.float32}
    np.testing.assert_allclose(halved.encode_texts(CAPTIONS), engine.encode_texts(CAPTIONS), atol=1e-2)


def test_the_hub_is_asked_only_for_what_can_be_no_path(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(hub_id: str) -> str:
        asked.append(hub_id)
        return str(folder)

    monkeypatch.setattr(model_directory, "download", download)
    monkeypatch.chdir(tmp_path)
    for path in ("nothing", "toy/nothing", "./some/where", "/absent/place", "a/b/c"):
        with pytest.raises(UserError, match="no such folder"):
            Engine.load(path)
    assert asked == []
    assert Engine.load("someone/something").name == "someone/something"
    assert asked == ["someone/something"]


def test_a_hub_that_does_not_answer_is_an_error_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object, **options: object) -> None:
        raise LocalEntryNotFoundError("Cannot reach the hub.\nMore about it.")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match=r"the Hugging Face hub gave no model .* \(Cannot reach the hub\)"):
        Engine.load("someone/something")


def test_an_unknown_device(folder: Path) -> None:
    with pytest.raises(UserError, match="Try auto"):
        Engine.load(folder, device="abacus")
