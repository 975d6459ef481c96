"""Writes a run or a model directory under the published names, in a form that other code reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from albef.config import ModelConfig, TaskConfig, UserError
from albef.exchange.account import Row
from albef.exchange.choices import EXPORTS
from albef.exchange.clip_files import FORMS, write_clip, write_openai
from albef.exchange.held import Held, held_by
from albef.exchange.lxmert_files import FILES as LXMERT_FILES
from albef.exchange.lxmert_files import write_hugging_face, write_lxmert
from albef.exchange.oscar_files import FILES as OSCAR_FILES
from albef.exchange.oscar_files import write_oscar
from albef.exchange.pth import check_new, write_pth
from albef.exchange.structure import Structure, structure_of
from albef.exchange.uniter_files import write_uniter
from albef.model import checkpoints
from albef.model_config import SystemName
from albef.writing import check_folder

# Systems whose scripts read a state dict alone.
WRITERS: dict[
    SystemName, Callable[[Path, Mapping[str, Tensor], tuple[str, ...]], tuple[Structure, list[Row]]]
] = {
    "lxmert": write_lxmert,
    "uniter": write_uniter,
}
# The options by which models are written, each with the systems that it is for.
OPTIONS: dict[str, tuple[SystemName, ...]] = {
    "--official FILE.pth": ("albef", *WRITERS),
    **{f"--to {form}": systems for form, systems in EXPORTS.items()},
}
# The files of each form that is a folder.
FOLDERS = {
    **{name: form.files for name, form in FORMS.items()},
    "hugging-face": (*FORMS["hugging-face"].files, *LXMERT_FILES),
    "pytorch-transformers": OSCAR_FILES,
}
NO_IMAGE = -100  # the published retrieval queue's mark of an empty entry


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
    refuse_others(source, held.config.system, "--official FILE.pth")
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


def export_to(source: str, form: str, place: Path) -> tuple[str, list[Row]]:
    """Writes a model in one of `EXPORTS`, with its published names. Returns what it is, and what was written.

    `place` is a file for openai and a folder for the others. Raises `UserError` for a model of another system, for a
    file that exists, and for a folder that holds something else.
    """
    check_new(place) if form == "openai" else check_folder(place, FOLDERS[form])
    held = held_by(source)
    system = held.config.system
    refuse_others(source, system, f"--to {form}")
    if system == "oscar":
        return write_oscar(place, held)
    if system == "lxmert":
        return write_hugging_face(place, held)
    return f"CLIP, {form}", export_clip(place, held, form)


def export_clip(place: Path, held: Held, form: str) -> list[Row]:
    """Writes a CLIP in fp32. Returns what was written."""
    config, own = held.config, held.config.vocabulary == "trained"
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
    if system not in OPTIONS[option]:
        remedy = " or ".join(name for name, systems in OPTIONS.items() if system in systems)
        raise UserError(
            f"{source}: is a model of system {system}, but {option} is for models of system "
            f"{' and '.join(OPTIONS[option])}; write it with {remedy}."
        )


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
