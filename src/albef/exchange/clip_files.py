"""Published files of CLIP, in and out: OpenAI's archives, open_clip's and Hugging Face's names."""

from __future__ import annotations

import dataclasses
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from albef.config import SIZES, UserError
from albef.disk import check_room
from albef.exchange.choices import ACTIVATIONS
from albef.exchange.clip_configs import (
    HUGGING_FACE_CONFIG,
    OPEN_CLIP_CONFIG,
    PIXELS_CONFIG,
    TOKENIZER_CONFIG,
    Told,
    custom_text_config,
    hugging_face_config,
    image_processor_config,
    open_clip_config,
    tokenizer_config,
    told_beside,
)
from albef.exchange.opening import open_published
from albef.exchange.pth import Published, check_new, is_plain, with_own_storage
from albef.exchange.stream import Place, write_tensors
from albef.exchange.structure import attention_heads, numbers
from albef.model_config import Activation, ModelConfig
from albef.model_directory import TOKENIZER_FILE
from albef.peers.clip import CLIP, resize_positions
from albef.peers.clip_names import (
    CUSTOM_TEXT,
    HUGGING_FACE,
    NAMINGS,
    OPENAI,
    Naming,
    joined,
    to_published,
)
from albef.writing import check_folder, whole_file, whole_folder, write_json

# Beside the weights, OpenAI's archives hold these numbers, scripted ones the causal mask, and old files of Hugging
# Face's the numbers of the positions.
BESIDE = ("input_resolution", "context_length", "vocab_size", "attn_mask", "position_ids")

POSITIONS = "image_encoder.positions"
ARCHIVE = Told("", "quick_gelu", {}, {})  # OpenAI's archives say nothing, and all have this
PUBLISHED_SIZES = [name for name in SIZES if name.startswith("clip-vit")]


class ClipFile(NamedTuple):
    """What a published file holds."""

    config: ModelConfig
    naming: str  # of NAMINGS
    told: Told
    published: dict[str, Tensor]  # as stored, in their names and precision
    left_out: list[str]  # names of what is no weight

    def weight(self, name: str) -> Tensor:
        """Our parameter `name` in fp32; positions for the images of `config`."""
        tensor = joined(self.published, name, NAMINGS[self.naming]).float()
        return resize_positions(tensor, self.config.grid) if name == POSITIONS else tensor

    def size_label(self) -> str:
        """Which published size it has, or the nearest one."""
        size = self.config.size
        return f"of no published size (nearest: {size})" if differing(size, self.config) else size


def read_clip(place: Path | str, heads: Sequence[int] = (), activation: Activation | None = None) -> ClipFile:
    """The model in a published file, or in a folder with one: its sizes, and its weights.

    `heads` are those of the image and the text encoder, one number for both, or none: then the configuration beside
    the file says it, or they are 64 wide. OpenAI's archives have `activation` quick_gelu; of others it must be given,
    unless a config.json or open_clip_config.json beside the file says it. Nothing in the file is run. Raises
    `UserError` for files of other models, RN50 among them, and for parts that do not fit together.
    """
    return clip_of(open_published(Path(os.path.expanduser(place))), heads, activation)


def clip_of(opened: Published, heads: Sequence[int] = (), activation: Activation | None = None) -> ClipFile:
    """As `read_clip`, for a file that is open."""
    file = opened.file
    left_out = [name for name in opened.state if name.rpartition(".")[2] in BESIDE]
    state = {name: tensor for name, tensor in opened.state.items() if name not in left_out}
    naming = naming_of(state, file)
    told = ARCHIVE if opened.scripted else told_beside(file, naming == "hugging-face")
    activation = activation or told.activation
    if activation not in ACTIVATIONS:
        raise UserError(
            f"{file}: does not say whether the model computes with quick_gelu or gelu, and the wrong one spoils its "
            f"features unnoticed; say which with --activation: OpenAI's weights have quick_gelu, most of open_clip's "
            f"own gelu."
        )
    config = config_of(state, NAMINGS[naming], heads, told, activation, file)
    with torch.device("meta"):
        own = CLIP(config).state_dict()
    check(state, to_published(own, NAMINGS[naming]), file)
    return ClipFile(config, naming, told, state, left_out)


def load_clip(place: Path | str, heads: Sequence[int] = (), activation: Activation | None = None) -> CLIP:
    """The model in a published file, ready to encode. Arguments and errors as of `read_clip`."""
    found = read_clip(place, heads, activation)
    with torch.device("meta"):
        model = CLIP(found.config)
    model.load_state_dict({name: found.weight(name) for name in model.state_dict()}, assign=True)
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
    return found._replace(config=dataclasses.replace(found.config, image_size=image_size))


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
    told: Told,
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
    unshown: dict[str, Any] = {
        **attention_heads((patches[0], words[1]), heads, told.heads, file),
        **told.pixels,
    }
    config = ModelConfig(
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
        transparent="dropped",
        **unshown,
    )
    nearest: Any = min(PUBLISHED_SIZES, key=lambda size: len(differing(size, config)))
    return dataclasses.replace(config, size=nearest)


def differing(size: str, config: ModelConfig) -> list[str]:
    """The whole numbers among the settings that a named size has otherwise."""
    own, other = vars(config), vars(SIZES[size])
    return [name for name, value in own.items() if type(value) is int and value != other[name]]


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
    """A form in which a model is written as a folder."""

    naming: Naming
    weights: str  # file in the folder
    configs: Mapping[str, Callable[[ModelConfig], dict[str, Any]]]  # files beside it

    @property
    def files(self) -> tuple[str, ...]:
        """All files of the folder."""
        return (self.weights, *self.configs, TOKENIZER_FILE)


FORMS = {
    "open-clip": Form(OPENAI, "open_clip_model.safetensors", {OPEN_CLIP_CONFIG: open_clip_config}),
    "open-clip-custom-text": Form(
        CUSTOM_TEXT, "open_clip_model.safetensors", {OPEN_CLIP_CONFIG: custom_text_config}
    ),
    "hugging-face": Form(
        HUGGING_FACE,
        "model.safetensors",
        {
            HUGGING_FACE_CONFIG: hugging_face_config,
            PIXELS_CONFIG: image_processor_config,
            TOKENIZER_CONFIG: tokenizer_config,
        },
    ),
}


def write_openai(file: Path, state: Mapping[str, Tensor]) -> int:
    """Writes a state dict with OpenAI's names as a file of torch's, in fp32. Returns the number of tensors.

    Raises `UserError` for a file that exists. The file does not say the activation.
    """
    check_new(file)
    published = {name: with_own_storage(tensor.cpu().float()) for name, tensor in to_published(state).items()}
    check_room(file, sum(tensor.nbytes for tensor in published.values()))
    with whole_file(file) as temporary, temporary.open("wb") as handle:
        torch.save(published, handle)
    return len(published)


def write_clip(
    folder: Path, state: Mapping[str, Tensor], config: ModelConfig, form: str, tokenizer: Path | None = None
) -> int:
    """Writes a folder in one of FORMS: weights as safetensors under its names, in fp32, and its configuration.

    Returns the number of tensors. `tokenizer` is the tokenizer.json to put beside them. Raises `UserError` for a folder
    that holds something else.
    """
    naming, weights, configs = FORMS[form]
    check_folder(folder, FORMS[form].files)
    published = to_published(state, naming)
    places = {name: Place(torch.float32, tensor.shape) for name, tensor in published.items()}
    check_room(folder, sum(4 * tensor.numel() for tensor in published.values()))
    with whole_folder(folder, FORMS[form].files, hash_name=None) as temporary:
        write_tensors(temporary / weights, places, (t.detach().cpu().float() for t in published.values()))
        for name, content in configs.items():
            write_json(temporary / name, content(config))
        if tokenizer:
            shutil.copyfile(tokenizer, temporary / TOKENIZER_FILE)
    return len(published)
