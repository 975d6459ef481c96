"""What a configuration beside CLIP's weights says of the model, and the configurations that other tools read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from albef.exchange.configs import not_ours, read_config
from albef.model_config import Activation, Fit, ModelConfig
from albef.peers.clip_text import SPECIALS

OPEN_CLIP_CONFIG, HUGGING_FACE_CONFIG = "open_clip_config.json", "config.json"
# Of Hugging Face's image processors: alone, or together with the tokenizer under "image_processor".
PIXELS_CONFIG, BOTH_CONFIG = "preprocessor_config.json", "processor_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
BICUBIC = 3  # Pillow's number of the filter
# What we read of a configuration of open_clip's, or what changes no number of a model that is not being trained.
OPEN_CLIP_KEYS = {
    *("image_size", "patch_size", "layers", "width", "head_width", "heads", "mlp_ratio", "patch_dropout"),
    *("context_length", "vocab_size", "output_tokens", "pad_id", "eos_id"),
}
OPEN_CLIP_DEFAULTS = ("tok", "argmax", "learnable", "linear")  # of what else it may say


class Told(NamedTuple):
    """What a file, or the configuration beside it, says of the model that no shape tells."""

    source: str  # name of the configuration; empty: there is none
    activation: Activation | None
    heads: dict[str, int]  # "image_heads", "text_heads"
    pixels: dict[str, Any]  # settings of the model: "mean", "std", "fit"


NOTHING = Told("", None, {}, {})


def told_beside(file: Path, hugging_face: bool) -> Told:
    """What the configuration in the folder of a file of weights says; `NOTHING` where there is none.

    Raises `UserError` for settings under which the same weights compute something else.
    """
    if hugging_face:
        found = read_config(file.with_name(HUGGING_FACE_CONFIG))
        if "vision_config" not in found:
            return NOTHING
        both = read_config(file.with_name(BOTH_CONFIG)).get("image_processor")
        pixels = read_config(file.with_name(PIXELS_CONFIG)) or (both if isinstance(both, dict) else {})
        told = told_by_hugging_face(tower_of(found, "vision_config"), tower_of(found, "text_config"), file)
        return told._replace(pixels=pixels_of_hugging_face(pixels, file))
    found = read_config(file.with_name(OPEN_CLIP_CONFIG))
    if not isinstance(found.get("model_cfg"), dict):
        return NOTHING
    told = told_by_open_clip(found["model_cfg"], file)
    return told._replace(pixels=pixels_of_open_clip(tower_of(found, "preprocess_cfg"), file))


def tower_of(config: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A part of a configuration; empty where it is left out."""
    found = config.get(part)
    return found if isinstance(found, dict) else {}


def told_by_hugging_face(vision: Mapping[str, Any], text: Mapping[str, Any], file: Path) -> Told:
    """Activation and heads. What their configurations leave out has their defaults."""
    heads: dict[str, int] = {}
    for part, tower in (("vision", vision), ("text", text)):
        if (eps := tower.get("layer_norm_eps", 1e-5)) != 1e-5:
            raise not_ours("CLIP", file, f"{part}_config.layer_norm_eps", eps)
        count = tower.get("num_attention_heads")
        ours = "image_heads" if part == "vision" else "text_heads"
        heads |= {ours: count} if type(count) is int and count > 0 else {}
    found = {str(tower.get("hidden_act", "quick_gelu")) for tower in (vision, text)}
    if found not in ({"quick_gelu"}, {"gelu"}):
        raise not_ours("CLIP", file, "hidden_act", " and ".join(sorted(found)))
    return Told(HUGGING_FACE_CONFIG, cast(Activation, found.pop()), heads, {})


def told_by_open_clip(config: Mapping[str, Any], file: Path) -> Told:
    """Activation and heads."""
    vision, text = tower_of(config, "vision_cfg"), tower_of(config, "text_cfg")
    for part, tower in (("vision_cfg", vision), ("text_cfg", text)):
        for key, value in tower.items():
            if key not in OPEN_CLIP_KEYS and value and value not in OPEN_CLIP_DEFAULTS:
                raise not_ours("CLIP", file, f"{part}.{key}", value)
    heads: dict[str, int] = {}
    width, each, count = vision.get("width"), vision.get("head_width", 64), text.get("heads")
    if type(width) is int and type(each) is int and each > 0:
        heads["image_heads"] = width // each
    if type(count) is int and count > 0:
        heads["text_heads"] = count
    return Told(OPEN_CLIP_CONFIG, "quick_gelu" if config.get("quick_gelu") else "gelu", heads, {})


def pixels_of_open_clip(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """How images become pixels, as settings of the model. What is left out has CLIP's values."""
    if (filter_name := config.get("interpolation", "bicubic")) != "bicubic":
        raise not_ours("CLIP", file, "preprocess_cfg.interpolation", filter_name)
    fits = {"shortest": "crop", "squash": "stretch"}
    if (resizing := config.get("resize_mode", "shortest")) not in fits:
        raise not_ours("CLIP", file, "preprocess_cfg.resize_mode", resizing)
    return {"fit": fits[resizing]} | colours(config, ("mean", "std"), file)


def pixels_of_hugging_face(config: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """How images become pixels, as settings of the model. What is left out has CLIP's values."""
    for key, usual in (
        ("resample", BICUBIC),
        ("do_resize", True),
        ("do_rescale", True),
        ("do_normalize", True),
    ):
        if config.get(key, usual) != usual:
            raise not_ours("CLIP", file, key, config[key])
    return {"fit": fit_of(config, file)} | colours(config, ("image_mean", "image_std"), file)


def fit_of(config: Mapping[str, Any], file: Path) -> Fit:
    """How Hugging Face's image processor makes an image square."""
    size, crop = sides_of(config.get("size")), sides_of(config.get("crop_size"))
    cropped = config.get("do_center_crop", True) is True
    kept = not crop or set(crop.values()) == set(size.values())  # no more is cut off than makes it square
    if not size or (set(size) == {"shortest_edge"} and cropped and kept):
        return "crop"
    if set(size) == {"height", "width"} and len(set(size.values())) == 1 and (kept or not cropped):
        return "stretch"
    raise not_ours("CLIP", file, "size", f"{size}, do_center_crop: {cropped}, crop_size: {crop}")


def sides_of(size: object) -> dict[str, int]:
    """The sides by name. Old files have one number, the shorter side."""
    if isinstance(size, dict):
        return {name: side for name, side in size.items() if type(side) is int}
    return {"shortest_edge": size} if type(size) is int else {}


def colours(config: Mapping[str, Any], names: tuple[str, str], file: Path) -> dict[str, tuple[float, ...]]:
    """Mean and standard deviation of the three channels, where a configuration says them."""
    found: dict[str, tuple[float, ...]] = {}
    for name, ours in zip(names, ("mean", "std"), strict=True):
        if (value := config.get(name)) is None:
            continue
        if not (
            isinstance(value, list) and len(value) == 3 and all(isinstance(one, int | float) for one in value)
        ):
            raise not_ours("CLIP", file, name, value)
        found[ours] = tuple(float(one) for one in value)
    return found


def open_clip_config(config: ModelConfig) -> dict[str, Any]:
    """The configuration that open_clip reads from a folder."""
    vision = {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "width": config.image_width,
        "layers": config.image_depth,
        "head_width": config.image_width // config.image_heads,
        "mlp_ratio": config.image_mlp_width / config.image_width,
    }
    text = {
        "context_length": config.max_positions,
        "vocab_size": config.vocab_size,
        "width": config.text_width,
        "heads": config.text_heads,
        "layers": config.text_depth,
        "mlp_ratio": config.text_mlp_width / config.text_width,
    }
    model: dict[str, Any] = {"embed_dim": config.feature_width, "vision_cfg": vision, "text_cfg": text}
    model["quick_gelu"] = config.activation == "quick_gelu"
    pixels = {
        "mean": list(config.mean),
        "std": list(config.std),
        "interpolation": "bicubic",
        "resize_mode": "shortest" if config.fit == "crop" else "squash",
    }
    return {"model_cfg": model, "preprocess_cfg": pixels}


def custom_text_config(config: ModelConfig) -> dict[str, Any]:
    """The same for open_clip's class CustomTextCLIP."""
    whole = open_clip_config(config)
    whole["model_cfg"]["custom_text"] = True
    return whole


def hugging_face_config(config: ModelConfig) -> dict[str, Any]:
    """The config.json that Hugging Face's CLIPModel reads."""
    both = {"hidden_act": config.activation, "layer_norm_eps": 1e-5, "projection_dim": config.feature_width}
    vision = both | {
        "model_type": "clip_vision_model",
        "hidden_size": config.image_width,
        "intermediate_size": config.image_mlp_width,
        "num_hidden_layers": config.image_depth,
        "num_attention_heads": config.image_heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
    }
    text = both | {
        "model_type": "clip_text_model",
        "hidden_size": config.text_width,
        "intermediate_size": config.text_mlp_width,
        "num_hidden_layers": config.text_depth,
        "num_attention_heads": config.text_heads,
        "max_position_embeddings": config.max_positions,
        "vocab_size": config.vocab_size,
        "bos_token_id": config.vocab_size - 2,
        "eos_token_id": config.vocab_size - 1,  # the text's feature is that of its first end token
        "pad_token_id": config.vocab_size - 1,
    }
    whole = {"model_type": "clip", "architectures": ["CLIPModel"], "projection_dim": config.feature_width}
    return whole | {"vision_config": vision, "text_config": text}


def image_processor_config(config: ModelConfig) -> dict[str, Any]:
    """The preprocessor_config.json that Hugging Face's CLIPImageProcessor reads."""
    square = {"height": config.image_size, "width": config.image_size}
    cropped = config.fit == "crop"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": config.image_size} if cropped else square,
        "resample": BICUBIC,
        "do_center_crop": cropped,
        "crop_size": square,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(config.mean),
        "image_std": list(config.std),
        "do_convert_rgb": True,
    }


def tokenizer_config(config: ModelConfig) -> dict[str, Any]:
    """The tokenizer_config.json that Hugging Face's AutoTokenizer reads beside a tokenizer.json."""
    start, end = SPECIALS
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": start,
        "eos_token": end,
        "unk_token": end,
        "pad_token": end,
        "model_max_length": config.max_tokens,
    }
