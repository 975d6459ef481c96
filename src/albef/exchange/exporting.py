"""Writes a run or a model directory under the published names, in a form that other code reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from albef.config import ModelConfig, TaskConfig, UserError
from albef.exchange.account import Row
from albef.exchange.choices import CLIP_FORMS
from albef.exchange.clip_files import FORMS, write_clip, write_openai
from albef.exchange.lxmert_files import write_lxmert
from albef.exchange.opening import mapped
from albef.exchange.pth import check_new, write_pth
from albef.exchange.structure import Structure, structure_of
from albef.exchange.uniter_files import write_uniter
from albef.manifest import MANIFEST_FILE, verify
from albef.model import checkpoints
from albef.model_config import SystemName
from albef.model_directory import (
    CONFIG_FILE,
    QUEUE_FILE,
    TEACHER_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    check_weights,
    find_model,
    read_config,
)
from albef.progress import say
from albef.recipe import load_recipe
from albef.systems import SYSTEMS, build_task
from albef.train.checkpoint import TASK_FILE, newest_checkpoint
from albef.writing import check_folder

# Systems whose scripts read a state dict alone.
WRITERS: dict[
    SystemName, Callable[[Path, Mapping[str, Tensor], tuple[str, ...]], tuple[Structure, list[Row]]]
] = {
    "lxmert": write_lxmert,
    "uniter": write_uniter,
}
OFFICIAL, TO = "--official FILE.pth", f"--to {', '.join(CLIP_FORMS)}"
# By which option a system's published form is written.
OPTIONS: dict[SystemName, str] = {"albef": OFFICIAL, **dict.fromkeys(WRITERS, OFFICIAL), "clip": TO}
NO_IMAGE = -100  # the published retrieval queue's mark of an empty entry


class Held(NamedTuple):
    """The content of a run or a model directory, under our names. Teacher and queue may be empty."""

    config: ModelConfig
    heads: tuple[str, ...]
    student: dict[str, Tensor]
    teacher: dict[str, Tensor]
    queue: dict[str, Tensor]
    tokenizer: Path


def export_official(source: str, file: Path) -> tuple[Structure, list[Row]]:
    """Writes `{"model": state dict}` with every published name. Returns which of the six models it is, and its parts.

    An LXMERT or a UNITER is written as its own scripts do: the state dict alone.

    Exports a run's newest whole checkpoint, or the content of a model directory. The published scripts expect a teacher,
    and Pretrain.py a queue. A missing teacher is replaced by the student (which needs no space in the file), a missing
    queue by random unit vectors, as in the published models. Raises `UserError` for a model with other heads, and for a
    file that exists.
    """
    check_new(file)
    held = held_by(source)
    refuse_others(source, held.config.system, OFFICIAL)
    if held.config.system in WRITERS:
        return WRITERS[held.config.system](file, held.student, held.heads)
    structure = structure_of(held.heads)
    if structure is None:
        raise UserError(
            f"{source}: was trained for {', '.join(held.heads)}, but no published model has these heads. "
            f"Pre-train with the losses itc, itm and mlm."
        )
    state = checkpoints.to_published(held.student, held.config)
    rows = [Row("written", "student", len(state), "")]
    if structure.has_teacher:
        teacher = checkpoints.to_published(held.student | held.teacher, held.config)
        copies = checkpoints.published_teacher(teacher)
        state |= copies
        rows.append(Row("written", "teacher", len(copies), "" if held.teacher else "a copy of the student"))
    if structure.has_queue:
        queue = filled(held.queue, held.config)
        with_image_id = structure.name != "pretrain"
        columns = checkpoints.published_queue(queue, with_image_id)
        state |= columns
        why = "" if held.queue else "random unit vectors, as the published models begin"
        size = len(queue["image"])
        if size != TaskConfig.queue_size:
            why = f"{why + '; ' if why else ''}queue_size: {size} in the script's configuration"
        rows.append(Row("written", "queue", len(columns), why))
    if held.config.fuse_placed_patches:
        why = "the published code shows fusion all image tokens, so its scores will differ"
        rows.append(Row("ignored", "fuse_placed_patches", None, why))
    write_pth(file, state, held.config)
    return structure, rows


def export_clip(source: str, form: str, place: Path) -> list[Row]:
    """Writes a CLIP in one of `CLIP_FORMS`, with its published names and in fp32. Returns what was written.

    `place` is a file for openai and a folder for the others. Raises `UserError` for a model of another system, for a
    file that exists, and for a folder that holds something else.
    """
    check_new(place) if form == "openai" else check_folder(place, FORMS[form].files)
    held = held_by(source)
    config = held.config
    refuse_others(source, config.system, TO)
    own = config.vocabulary == "trained"
    if form == "openai":
        rows = [Row("written", "model", write_openai(place, held.student), "in fp32")]
        why = f"{config.activation}: no such file says it, so say it where you load it"
        rows.append(Row("ignored", "activation", None, why))
        rows += [Row("ignored", "tokenizer", None, f"its own: {held.tokenizer}")] if own else []
        return rows
    count = write_clip(place, held.student, config, form, held.tokenizer)
    rows = [Row("written", FORMS[form].weights, count, "in fp32")]
    rows += [Row("written", name, None, "") for name in FORMS[form].files[1:]]
    if own and form != "hugging-face":
        why = "open_clip has that of CLIP alone: make ids with tokenizer.json"
        rows.append(Row("ignored", "tokenizer", None, why))
    return rows


def refuse_others(source: str, system: SystemName, option: str) -> None:
    """Raises `UserError` for a model of a system that is written with another option."""
    own = OPTIONS.get(system)
    if own != option:
        fitting = " and ".join(name for name, one in OPTIONS.items() if one == option)
        remedy = f"write it with {own}" if own else "its published form is not written yet"
        raise UserError(
            f"{source}: is a model of system {system}, but {option} is for models of system {fitting}; {remedy}."
        )


def held_by(source: str) -> Held:
    """What a run's newest checkpoint or a model directory holds."""
    return held_by_run(Path(os.path.expanduser(source))) or held_by_model(source)


def held_by_run(folder: Path) -> Held | None:
    """The newest undamaged checkpoint of a run. None for a folder without checkpoints."""
    recipe = folder / "config.yaml"
    newest = newest_checkpoint(folder / "checkpoints", say) if recipe.is_file() else None
    if newest is None:
        return None
    config = load_recipe(recipe)
    file = newest[0] / TASK_FILE
    tensors = mapped(file)
    with torch.device("meta"):
        task = build_task(config)
    check_weights(file, tensors, task.state_dict())

    def below(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}

    student, teacher, queue = below("student."), below("teacher.module."), below("queue.")
    return Held(config.model, task.student.heads, student, teacher, queue, folder / TOKENIZER_FILE)


def held_by_model(source: str) -> Held:
    """The content of a model directory."""
    folder, _ = find_model(source)
    if (folder / MANIFEST_FILE).is_file():
        there = [name for name in (WEIGHTS_FILE, TEACHER_FILE, QUEUE_FILE) if (folder / name).is_file()]
        verify(folder, there)
    config, heads = read_config(folder / CONFIG_FILE)
    student, teacher, queue = (
        mapped(folder / file) if file == WEIGHTS_FILE or (folder / file).is_file() else {}
        for file in (WEIGHTS_FILE, TEACHER_FILE, QUEUE_FILE)
    )
    with torch.device("meta"):
        own = SYSTEMS[config.system].model(config, heads).state_dict()
    check_weights(folder / WEIGHTS_FILE, student, own)
    return Held(config, heads, student, teacher, queue, folder / TOKENIZER_FILE)


def filled(queue: Mapping[str, Tensor], config: ModelConfig) -> dict[str, Tensor]:
    """A queue without empty entries, since the published code uses every entry as a negative."""
    if not queue or not len(queue["image"]):
        size = TaskConfig.queue_size
        queue = {
            "image": torch.zeros(size, config.feature_width),
            "text": torch.zeros(size, config.feature_width),
            "pointer": torch.zeros(1, dtype=torch.long),
            "count": torch.zeros(1, dtype=torch.long),
        }
    size = len(queue["image"])
    real = int(queue["count"]) if "count" in queue else size
    found = {"pointer": queue["pointer"]}
    generator = torch.Generator().manual_seed(0)
    for name in ("image", "text"):
        noise = torch.randn(size - real, config.feature_width, generator=generator)
        kept = queue[name]
        found[name] = torch.cat([kept[:real], nn.functional.normalize(noise, dim=1)]) if real < size else kept
    image_id = queue.get("image_id", torch.full((size,), NO_IMAGE))
    found["image_id"] = (
        torch.where(torch.arange(size) < real, image_id, NO_IMAGE) if real < size else image_id
    )
    return found
