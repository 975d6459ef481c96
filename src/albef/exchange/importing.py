"""Converts a published checkpoint to a model directory: of ALBEF with teacher and queue to continue training."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from albef.config import ModelConfig, UserError
from albef.data.text import Tokenizer
from albef.disk import check_room
from albef.errors import reading
from albef.exchange.account import Row, account, model_card
from albef.exchange.choices import Choices
from albef.exchange.clip_importing import import_clip
from albef.exchange.fitting import check_tied, check_vocabulary, no_floats, refuse_misfits
from albef.exchange.lxmert_files import import_lxmert
from albef.exchange.opening import open_published
from albef.exchange.oscar_files import import_oscar
from albef.exchange.pth import Published
from albef.exchange.stream import Place, write_tensors
from albef.exchange.structure import QUEUES, TEACHER, Structure, model_config, recognise
from albef.exchange.uniter_files import import_uniter
from albef.model import checkpoints
from albef.model.albef import ALBEF
from albef.model.image_encoder import resize_positions
from albef.model_directory import (
    FILES,
    QUEUE_FILE,
    TEACHER_FILE,
    WEIGHTS_FILE,
    Trained,
    check_name,
    read_answers,
    write_description,
)
from albef.progress import track
from albef.writing import check_folder, whole_folder

POSITIONS = "image_encoder.positions"
UNTAUGHT = ("itm_head", "temperature")  # parts without a momentum copy


class Parts(NamedTuple):
    """A published state dict in parts. Student and teacher both have the names of a pre-trained student."""

    student: dict[str, Tensor]
    teacher: dict[str, Tensor]
    queue: dict[str, Tensor]


class Recognised(NamedTuple):
    """How the files of a system are known, and what converts them."""

    roots: tuple[str, ...]  # how some names of its tensors begin
    convert: Callable[[Published, Path, Choices], tuple[Structure, list[Row]]]


def import_checkpoint(
    place: Path, folder: Path, choices: Choices | None = None
) -> tuple[Structure, list[Row]]:
    """Writes a model directory from a published file, or from a folder with one, of any system that it recognises.

    Returns which published model it was, and what happened to its parts. Raises `UserError` for files of other models,
    for contradicting shapes, for choices that mean nothing to the model, and for a folder that holds something else.
    """
    check_name(folder)
    check_folder(folder, FILES)
    opened = open_published(place)
    reading.set(opened.file)
    for system in RECOGNISED:
        if any(name.startswith(system.roots) for name in opened.state):
            return system.convert(opened, folder, choices or Choices())
    first = ", ".join(list(opened.state)[:3]) or "no tensors at all"
    raise UserError(
        f"{opened.file}: not one of the published models of ALBEF, CLIP, LXMERT, OSCAR and UNITER: nothing in it is "
        f"named as theirs (but {first}, …); give a whole checkpoint of one of them."
    )


def import_albef(published: Published, folder: Path, choices: Choices) -> tuple[Structure, list[Row]]:
    """As `import_checkpoint`, for one of ALBEF's six models. Only one tensor is in memory at a time."""
    file = published.file
    choices.refuse(("activation",), file, "an ALBEF")
    parts = taken_apart(published.state)
    structure = recognise(parts.student, file)
    config = model_config(parts.student, structure, choices.heads, published.told, file)
    own = shapes_of(config, structure)
    taught = {name: tensor for name, tensor in own.items() if name.partition(".")[0] not in UNTAUGHT}
    check(parts.student, own, config, file)
    if structure.has_teacher and not lacking(parts.teacher, taught, config):
        check(parts.teacher, taught, config, file)
    else:  # an incomplete teacher does not count
        parts = parts._replace(teacher={})
    parts = parts._replace(queue=own_queue(parts.queue, config, file) if structure.has_queue else {})
    config = dataclasses.replace(
        config,
        image_size=choices.image_size or config.image_size,
        append_sep=ends_in_sep(file, published, choices),
        vocabulary="trained" if choices.tokenizer else "bert",
    )
    tokenizer = Tokenizer.load(choices.tokenizer) if choices.tokenizer else Tokenizer.bert()
    check_vocabulary(config.vocab_size, tokenizer.vocab_size, file)
    answers = read_answers(choices.answers) if choices.answers else ()
    card = model_card(file, structure, config)
    written = (parts.student, parts.teacher, parts.queue)
    check_room(folder, sum(tensor.nbytes for tensors in written for tensor in tensors.values()))
    with whole_folder(folder, FILES) as temporary:
        with torch.device("meta"):
            model = ALBEF(config, structure.heads)
        trained = Trained(structure.task, file.name)
        write_description(temporary, model, tokenizer, card, answers, trained)
        write_weights(temporary / WEIGHTS_FILE, parts.student, list(own), config, "model")
        if parts.teacher:
            write_weights(temporary / TEACHER_FILE, parts.teacher, list(taught), config, "teacher")
        if parts.queue:
            places = {name: Place(tensor.dtype, tensor.shape) for name, tensor in parts.queue.items()}
            write_tensors(temporary / QUEUE_FILE, places, parts.queue.values())
    return structure, account(published, parts.teacher, parts.queue, structure, config, own)


RECOGNISED = (
    Recognised(("visual_encoder.", "text_encoder."), import_albef),
    Recognised(("uniter.",), import_uniter),
    Recognised(("bert.encoder.visn_fc.", "lxrt_encoder.model.", "lxmert.encoder.visn_fc."), import_lxmert),
    Recognised(("bert.img_embedding.",), import_oscar),
    Recognised(("visual.", "text.", "token_embedding.", "vision_model.", "text_model."), import_clip),
)


def taken_apart(state: Mapping[str, Tensor]) -> Parts:
    """Student, teacher and queue of a state dict."""
    student: dict[str, Tensor] = {}
    teacher: dict[str, Tensor] = {}
    for name, tensor in state.items():
        copy = TEACHER.fullmatch(name)
        if copy:
            teacher[f"{copy[1]}.{copy[2]}"] = tensor
        elif name not in QUEUES:
            student[name] = tensor
    queue = {name: state[name] for name in QUEUES if name in state}
    return Parts(checkpoints.pretrained(student), checkpoints.pretrained(teacher), queue)


def shapes_of(config: ModelConfig, structure: Structure) -> dict[str, Tensor]:
    """The state dict of our model, on the meta device (without memory)."""
    with torch.device("meta"):
        return ALBEF(config, structure.heads).state_dict()


def lacking(state: Mapping[str, Tensor], own: Mapping[str, Tensor], config: ModelConfig) -> list[str]:
    """Published names that our tensors need and the state dict lacks."""
    return [name for name in checkpoints.split_published(own, config) if name not in state]


def check(state: Mapping[str, Tensor], own: Mapping[str, Tensor], config: ModelConfig, file: Path) -> None:
    """Raises `UserError` unless a state dict has all that our tensors need, and its tied tensors are equal."""
    expected = checkpoints.split_published(own, config)
    problems = [f"{name} is missing" for name in lacking(state, own, config)]
    problems += [
        f"{name} is {list(state[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state
        and state[name].shape != tensor.shape
        and not state[name].numel() == tensor.numel() == 1
    ]
    refuse_misfits(problems + no_floats(state, expected), file)
    check_tied(state, checkpoints.tied_names(state, config), file, "ALBEF")


def own_queue(queue: Mapping[str, Tensor], config: ModelConfig, file: Path) -> dict[str, Tensor]:
    """The queue in our layout, a row for each pair. Empty if the file has none."""
    if not {"image_queue", "text_queue", "queue_ptr"} <= set(queue):
        return {}
    shape = torch.Size([config.feature_width, queue["text_queue"].shape[-1]])
    wrong = [name for name in ("image_queue", "text_queue") if queue[name].shape != shape]
    if "idx_queue" in queue and queue["idx_queue"].shape != (1, shape[1]):
        wrong.append("idx_queue")
    if wrong or queue["queue_ptr"].numel() != 1:
        name = [*wrong, "queue_ptr"][0]
        raise UserError(
            f"{file}: {name} is {list(queue[name].shape)}, but a queue needs {config.feature_width} channels. "
            f"Take the published file."
        )
    found = {"image": queue["image_queue"].T, "text": queue["text_queue"].T, "pointer": queue["queue_ptr"]}
    return found | ({"image_id": queue["idx_queue"][0]} if "idx_queue" in queue else {})


def ends_in_sep(file: Path, published: Published, choices: Choices) -> bool:
    """Whether the model's texts end in [SEP]. Weights do not show it. LAVIS's files are known by their names."""
    if choices.append_sep is not None:
        return choices.append_sep
    return bool(published.told.get("append_sep", "lavis" in file.name.lower()))


def write_weights(
    file: Path, state: Mapping[str, Tensor], names: Sequence[str], config: ModelConfig, label: str
) -> None:
    """Writes our tensors of these names, joined one by one, with positions resized to the model's images."""
    grid_shape = torch.Size([1, 1 + config.grid**2, config.image_width])

    def places() -> Iterator[tuple[str, Place]]:
        for name in names:
            parts = [state[part] for part in checkpoints.published_names(name, config)]
            rows = sum(len(part) for part in parts) if parts[0].dim() else 1
            shape = grid_shape if name == POSITIONS else torch.Size([rows, *parts[0].shape[1:]])
            yield name, Place(functools.reduce(torch.promote_types, (part.dtype for part in parts)), shape)

    def tensors() -> Iterator[Tensor]:
        for name in track(names, f"writing the {label}", len(names)):
            tensor = checkpoints.joined(state, name, config)
            if name == POSITIONS and tensor.shape != grid_shape:
                tensor = resize_positions(tensor.float(), config.grid).to(tensor.dtype)
            yield tensor

    write_tensors(file, dict(places()), tensors())
