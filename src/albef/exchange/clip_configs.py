"""What a configuration beside CLIP's weights says of the model, and the configurations that other tools read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from albef.config import UserError
from albef.model_config import Activation, ModelConfig

OPEN_CLIP_CONFIG, HUGGING_FACE_CONFIG = "open_clip_config.json", "config.json"
# What we read of a configuration of open_clip's, or what changes no number of a model that is not being trained.
OPEN_CLIP_KEYS = {
    *("image_size", "patch_size", "layers", "width", "head_width", "heads", "mlp_ratio", "patch_dropout"),
    *("context_length", "vocab_size", "output_tokens", "pad_id", "eos_id"),
}
OPEN_CLIP_DEFAULTS = ("tok", "argmax", "learnable", "linear")  # of what else it may say


class Told(NamedTuple):
    """What a file, or the configuration beside it, says of the model that no shape tells."""

    activation: Activation | None
    heads: dict[str, int]  # "image_heads", "text_heads"


def told_beside(file: Path, hugging_face: bool) -> Told:
    """What the configuration in the folder of a file of weights says; nothing where there is none."""
    if hugging_face:
        found = read_config(file.with_name(HUGGING_FACE_CONFIG))
        towers = {part: found.get(f"{part}_config") for part in ("vision", "text")}
        return told_by_hugging_face(towers, file) if "vision_config" in found else Told(None, {})
    config = read_config(file.with_name(OPEN_CLIP_CONFIG)).get("model_cfg")
    return told_by_open_clip(config, file) if isinstance(config, dict) else Told(None, {})


def read_config(file: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file. Raises `UserError` for other content."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{file}: not a JSON object; get it again, or remove it.")
    return found


def told_by_hugging_face(towers: Mapping[str, object], file: Path) -> Told:
    """Activation and heads. What their configurations leave out has their defaults."""
    found: set[str] = set()
    heads: dict[str, int] = {}
    for (part, tower), ours in zip(towers.items(), ("image_heads", "text_heads"), strict=True):
        tower = tower if isinstance(tower, dict) else {}
        found.add(str(tower.get("hidden_act", "quick_gelu")))
        eps, count = tower.get("layer_norm_eps", 1e-5), tower.get("num_attention_heads")
        if eps != 1e-5:
            raise not_ours(file, f"{part}_config.layer_norm_eps", eps)
        heads |= {ours: count} if type(count) is int and count > 0 else {}
    if found not in ({"quick_gelu"}, {"gelu"}):
        raise not_ours(file, "hidden_act", " and ".join(sorted(found)))
    return Told(cast(Activation, found.pop()), heads)


def told_by_open_clip(config: Mapping[str, Any], file: Path) -> Told:
    """Activation and heads. Raises `UserError` for settings under which the same weights compute something else."""
    heads: dict[str, int] = {}
    for part in ("vision_cfg", "text_cfg"):
        tower = config.get(part)
        tower = tower if isinstance(tower, dict) else {}
        for key, value in tower.items():
            if key not in OPEN_CLIP_KEYS and value and value not in OPEN_CLIP_DEFAULTS:
                raise not_ours(file, f"{part}.{key}", value)
        width, each, count = tower.get("width"), tower.get("head_width", 64), tower.get("heads")
        if part == "vision_cfg" and type(width) is int and type(each) is int and each > 0:
            heads["image_heads"] = width // each
        elif part == "text_cfg" and type(count) is int and count > 0:
            heads["text_heads"] = count
    return Told("quick_gelu" if config.get("quick_gelu") else "gelu", heads)


def not_ours(file: Path, key: str, value: object) -> UserError:
    """The refusal of a configuration that the model here does not have."""
    return UserError(
        f"{file}: its configuration says {key}: {str(value)[:60]}, which CLIP as published does not have; it is "
        f"another model."
    )


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
    pixels = ModelConfig()
    return {"model_cfg": model, "preprocess_cfg": {"mean": list(pixels.mean), "std": list(pixels.std)}}


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
