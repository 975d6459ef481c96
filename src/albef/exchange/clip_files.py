"""Published files of CLIP, in and out: OpenAI's archives, open_clip's and Hugging Face's names."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, get_args

import torch
from safetensors.torch import save_file
from torch import Tensor

from albef.config import UserError
from albef.disk import check_room
from albef.exchange.clip_configs import (
    HUGGING_FACE_CONFIG,
    OPEN_CLIP_CONFIG,
    Told,
    hugging_face_config,
    open_clip_config,
    told_beside,
)
from albef.exchange.pth import check_new, is_plain
from albef.exchange.structure import attention_heads, numbers
from albef.exchange.torchscript import is_torchscript, read_torchscript
from albef.model_config import Activation, ModelConfig
from albef.peers.clip import CLIP, resize_positions
from albef.peers.clip_names import (
    CUSTOM_TEXT,
    HUGGING_FACE,
    NAMINGS,
    OPENAI,
    Naming,
    from_published,
    to_published,
)
from albef.train.weights_file import find_weights, read_weights
from albef.writing import check_folder, whole_file, whole_folder, write_json

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
# Beside the weights, OpenAI's archives hold these numbers, scripted ones the causal mask, and old files of Hugging
# Face's the numbers of the positions.
BESIDE = ("input_resolution", "context_length", "vocab_size", "attn_mask", "position_ids")

POSITIONS = "image_encoder.positions"


class ClipFile(NamedTuple):
    """What a published file holds."""

    config: ModelConfig
    state: dict[str, Tensor]  # our names, fp32
    naming: str  # of NAMINGS
    left_out: list[str]  # names that are no weights


def read_clip(place: Path | str, heads: Sequence[int] = (), activation: Activation | None = None) -> ClipFile:
    """The model in a published file, or in a folder with one: its sizes, and its weights in fp32 under our names.

    `heads` are those of the image and the text encoder, one number for both, or none: then the configuration beside
    the file says it, or they are 64 wide. OpenAI's archives have `activation` quick_gelu; of others it must be given,
    unless a config.json or open_clip_config.json beside the file says it. Nothing in the file is run. Raises
    `UserError` for files of other models, RN50 among them, and for parts that do not fit together.
    """
    file = find_weights(str(place), "the checkpoint")
    scripted = is_torchscript(file)
    raw = read_torchscript(file) if scripted else read_weights(file)
    state = {name.removeprefix("module."): tensor for name, tensor in raw.items()}
    left_out = [name for name in state if name.rpartition(".")[2] in BESIDE]
    state = {name: tensor for name, tensor in state.items() if name not in left_out}
    naming = naming_of(state, file)
    told = Told("quick_gelu", {}) if scripted else told_beside(file, naming == "hugging-face")
    activation = activation or told.activation
    if activation not in ACTIVATIONS:
        raise UserError(
            f"{file}: does not say whether the model computes with quick_gelu or gelu, and the wrong one spoils its "
            f"features unnoticed. Say which: OpenAI's weights have quick_gelu, most of open_clip's own gelu."
        )
    config = config_of(state, NAMINGS[naming], heads, told.heads, activation, file)
    with torch.device("meta"):
        own = CLIP(config).state_dict()
    check(state, to_published(own, NAMINGS[naming]), file)
    ours = from_published(state, own, NAMINGS[naming])
    return ClipFile(config, {name: tensor.float() for name, tensor in ours.items()}, naming, left_out)


def load_clip(place: Path | str, heads: Sequence[int] = (), activation: Activation | None = None) -> CLIP:
    """The model in a published file, ready to encode. Arguments and errors as of `read_clip`."""
    found = read_clip(place, heads, activation)
    with torch.device("meta"):
        model = CLIP(found.config)
    model.load_state_dict(found.state, assign=True)
    return model.eval()


def resized(found: ClipFile, image_size: int) -> ClipFile:
    """The same model for images of `image_size` pixels a side: its position embeddings are resized.

    Raises `UserError` for a size that is no multiple of the patch size.
    """
    patch = found.config.patch_size
    if image_size < patch or image_size % patch:
        raise UserError(
            f"image size {image_size}: the model's patches are {patch} pixels wide; give a multiple of {patch}."
        )
    positions = resize_positions(found.state[POSITIONS], image_size // patch)
    config = dataclasses.replace(found.config, image_size=image_size)
    return found._replace(config=config, state=found.state | {POSITIONS: positions})


def naming_of(state: Mapping[str, Tensor], file: Path) -> str:
    """By which of NAMINGS the state dict names its tensors. Raises `UserError` for other models."""
    if any(name.startswith(("visual.layer1.", "visual.attnpool.")) for name in state):
        raise UserError(
            f"{file}: its image encoder is a ResNet (RN50 and its kin), which is not read here; give a model with a "
            f"ViT, such as ViT-B-32."
        )
    for label, naming in NAMINGS.items():
        if naming.parts("text_encoder.words.weight")[0] in state:
            return label
    first = ", ".join(list(state)[:3]) or "no tensors at all"
    raise UserError(
        f"{file}: not a CLIP model: it has no token embeddings under the names of OpenAI, open_clip or Hugging Face "
        f"(but {first}, …); give a whole CLIP checkpoint."
    )


DIMENSIONS = {  # of the tensors that tell the sizes
    "image_encoder.patches.weight": 4,
    POSITIONS: 2,
    "image_encoder.blocks.0.mlp.up.weight": 2,
    "text_encoder.words.weight": 2,
    "text_encoder.positions": 2,
    "text_encoder.blocks.0.mlp.up.weight": 2,
    "text_projection.weight": 2,
}


def config_of(
    state: Mapping[str, Tensor],
    naming: Naming,
    heads: Sequence[int],
    told_heads: Mapping[str, int],
    activation: Activation,
    file: Path,
) -> ModelConfig:
    """The sizes, read off the shapes. Raises `UserError` where the shapes are no CLIP's."""

    def shape(name: str) -> tuple[int, ...]:
        (part, *_) = naming.parts(name)
        found = tuple(state[part].shape) if part in state else ()
        return found[::-1] if name in naming.transposed else found

    shapes = {name: shape(name) for name in DIMENSIONS}
    places = shapes[POSITIONS]
    grid = math.isqrt(places[0] - 1) if places and places[0] > 1 else 0
    wrong = [name for name, one in shapes.items() if len(one) != DIMENSIONS[name] or 0 in one]
    if wrong or places[0] != 1 + grid**2:
        name = [*wrong, POSITIONS][0]
        raise UserError(
            f"{file}: {naming.parts(name)[0]} is missing, or its shape {list(shapes[name])} is no CLIP's with a ViT; "
            f"give a whole CLIP checkpoint."
        )
    patches, _, image_mlp, words, positions, text_mlp, projection = shapes.values()
    counts = attention_heads((patches[0], words[1]), heads, told_heads, file)
    return ModelConfig(
        size="clip-vit-b-32",
        image_size=grid * patches[-1],
        patch_size=patches[-1],
        image_width=patches[0],
        image_depth=len(numbers(state, naming.image_blocks.replace(".", r"\.") + r"\.(\d+)\.")),
        image_mlp_width=image_mlp[0],
        text_width=words[1],
        text_depth=len(numbers(state, naming.text_blocks.replace(".", r"\.") + r"\.(\d+)\.")),
        text_mlp_width=text_mlp[0],
        feature_width=projection[0],
        vocab_size=words[0],
        max_positions=positions[0],
        max_tokens=positions[0],
        activation=activation,
        image_heads=counts["image_heads"],
        text_heads=counts["text_heads"],
    )


def check(state: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path) -> None:
    """Raises `UserError` unless the state dict has just these names and shapes, in plain numbers."""
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{name} is no part of CLIP" for name in state if name not in expected]
    for name, tensor in state.items():
        if name not in expected:
            continue
        if tensor.shape != expected[name].shape and not (name == "logit_scale" and tensor.numel() == 1):
            problems.append(f"{name} is {list(tensor.shape)} instead of {list(expected[name].shape)}")
        elif not is_plain(tensor) or tensor.nbytes > tensor.untyped_storage().nbytes():
            problems.append(f"{name} is no plain tensor in memory")
        elif not tensor.is_floating_point():
            problems.append(f"{name} holds {tensor.dtype}")
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"{file}: the parts are not those of a CLIP with a ViT ({'; '.join(problems[:3])}{more}); this is another "
            f"model, or a damaged file: get the published one."
        )


class Form(NamedTuple):
    """A form in which a model is given away."""

    naming: Naming
    weights: str  # file in the folder
    config: str  # file beside it


FORMS = {
    "open-clip": Form(OPENAI, "open_clip_model.safetensors", OPEN_CLIP_CONFIG),
    "open-clip-custom-text": Form(CUSTOM_TEXT, "open_clip_model.safetensors", OPEN_CLIP_CONFIG),
    "hugging-face": Form(HUGGING_FACE, "model.safetensors", HUGGING_FACE_CONFIG),
}


def write_openai(file: Path, state: Mapping[str, Tensor]) -> None:
    """Writes a state dict with OpenAI's names as a file of torch's, which OpenAI's and open_clip's code load.

    Raises `UserError` for a file that exists. The file does not say the activation.
    """
    check_new(file)
    published = contiguous(to_published(state))
    check_room(file, sum(tensor.nbytes for tensor in published.values()))
    with whole_file(file) as temporary, temporary.open("wb") as handle:
        torch.save(published, handle)


def write_clip(folder: Path, state: Mapping[str, Tensor], config: ModelConfig, form: str) -> None:
    """Writes a folder in one of FORMS: weights as safetensors under its names, and its configuration.

    Raises `UserError` for a folder that holds something else.
    """
    naming, weights, beside = FORMS[form]
    check_folder(folder, (weights, beside))
    published = contiguous(to_published(state, naming))
    check_room(folder, sum(tensor.nbytes for tensor in published.values()))
    with whole_folder(folder, (weights, beside), hash_name=None) as temporary:
        save_file(published, temporary / weights, metadata={"format": "pt"})
        content = hugging_face_config(config) if form == "hugging-face" else open_clip_config(config)
        if form == "open-clip-custom-text":
            content["model_cfg"]["custom_text"] = True
        write_json(temporary / beside, content)


def contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each one in memory of its own."""
    return {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in state.items()
    }
