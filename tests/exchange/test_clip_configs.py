"""Configurations beside CLIP's weights: what they say is obeyed, or refused by name; what we write says the same."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

import toy_clip
from albef.config import UserError
from albef.exchange.clip_configs import (
    NOTHING,
    hugging_face_config,
    image_processor_config,
    open_clip_config,
    told_beside,
)
from albef.model_config import ModelConfig

OTHER = dataclasses.replace(toy_clip.CONFIG, fit="stretch", mean=(0.5, 0.4, 0.3), std=(0.1, 0.2, 0.3))
FILE = "model.safetensors"


def open_clip(folder: Path, **pixels: Any) -> Path:
    """The place of a file of weights, beside which open_clip's configuration lies."""
    content = open_clip_config(toy_clip.CONFIG)
    content["preprocess_cfg"] |= pixels
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    return folder / FILE


def hugging_face(folder: Path, pixels: object = None, name: str = "preprocessor_config.json") -> Path:
    (folder / "config.json").write_text(json.dumps(hugging_face_config(toy_clip.CONFIG)))
    if pixels is not None:
        (folder / name).write_text(json.dumps(pixels))
    return folder / FILE


@pytest.mark.parametrize("config", [toy_clip.CONFIG, OTHER], ids=["as CLIP", "otherwise"])
def test_what_is_written_says_how_images_become_pixels(config: ModelConfig, tmp_path: Path) -> None:
    expected = {"fit": config.fit, "mean": config.mean, "std": config.std}
    (tmp_path / "open_clip_config.json").write_text(json.dumps(open_clip_config(config)))
    assert told_beside(tmp_path / FILE, hugging_face=False).pixels == expected
    place = hugging_face(tmp_path, image_processor_config(config))
    assert told_beside(place, hugging_face=True).pixels == expected


def test_where_no_configuration_is_nothing_is_told(tmp_path: Path) -> None:
    for named in (True, False):
        assert told_beside(tmp_path / FILE, named) == NOTHING
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')  # of another model in the same folder
    assert told_beside(tmp_path / FILE, hugging_face=True) == NOTHING


PROCESSORS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "of 2021": ({"size": 16, "crop_size": 16, "do_center_crop": True, "resample": 3}, {"fit": "crop"}),
    "nothing": ({}, {"fit": "crop"}),
    "a square": (
        {
            "size": {"height": 16, "width": 16},
            "do_center_crop": False,
            "crop_size": {"height": 9, "width": 9},
        },
        {"fit": "stretch"},
    ),
    "a square, and nothing cut off": (
        {"size": {"height": 16, "width": 16}, "crop_size": {"height": 16, "width": 16}},
        {"fit": "stretch"},
    ),
    "colours": ({"image_mean": [0, 0.5, 1]}, {"fit": "crop", "mean": (0.0, 0.5, 1.0)}),
}


@pytest.mark.parametrize(("pixels", "told"), PROCESSORS.values(), ids=PROCESSORS)
def test_image_processors_of_hugging_face(
    pixels: dict[str, Any], told: dict[str, Any], tmp_path: Path
) -> None:
    assert told_beside(hugging_face(tmp_path, pixels), hugging_face=True).pixels == told
    (tmp_path / "preprocessor_config.json").unlink()
    both = hugging_face(tmp_path, {"image_processor": pixels}, "processor_config.json")
    assert told_beside(both, hugging_face=True).pixels == told


UNLIKE: dict[str, dict[str, Any]] = {
    "resample": {"resample": 2},
    "do_normalize": {"do_normalize": False},
    "image_mean": {"image_mean": [0.5]},
    "image_std": {"image_std": "many"},
    "larger than it is cut out": {"size": 18, "crop_size": 16},
    "not made square": {"size": {"shortest_edge": 16}, "do_center_crop": False},
    "no square": {"size": {"height": 16, "width": 17}, "do_center_crop": False},
    "a longest side": {"size": {"longest_edge": 16}},
}


@pytest.mark.parametrize("pixels", UNLIKE.values(), ids=UNLIKE)
def test_image_processors_that_clip_does_not_have(pixels: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=next(iter(pixels))):
        told_beside(hugging_face(tmp_path, pixels), hugging_face=True)


@pytest.mark.parametrize(
    "pixels",
    [{"interpolation": "bilinear"}, {"resize_mode": "longest"}, {"mean": 0.5}, {"std": [1, 2, None]}],
)
def test_pixels_that_open_clip_has_and_clip_does_not(pixels: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=next(iter(pixels))):
        told_beside(open_clip(tmp_path, **pixels), hugging_face=False)
    told = told_beside(open_clip(tmp_path, resize_mode="squash"), hugging_face=False)
    assert told.pixels["fit"] == "stretch"


@pytest.mark.parametrize("broken", [3, "a", [1], None, {"size": []}, {"crop_size": {"height": [1]}}])
def test_a_configuration_of_strange_shape_is_a_sentence_or_nothing(broken: object, tmp_path: Path) -> None:
    for part in ("vision_config", "text_config", "image_processor"):
        content = hugging_face_config(toy_clip.CONFIG) | {part: broken}
        (tmp_path / "config.json").write_text(json.dumps(content))
        (tmp_path / "processor_config.json").write_text(json.dumps(content))
        told_beside(tmp_path / FILE, hugging_face=True)
    for part in ("model_cfg", "preprocess_cfg"):
        content = open_clip_config(toy_clip.CONFIG) | {part: broken}
        (tmp_path / "open_clip_config.json").write_text(json.dumps(content))
        told_beside(tmp_path / FILE, hugging_face=False)
