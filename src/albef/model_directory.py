"""Reads and writes model directories: configuration, weights, tokenizer, model card. Fetches them from the hub."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from albef.config import LATER, ModelConfig, TaskName, UserError
from albef.data.words import AnyTokenizer
from albef.errors import reading
from albef.manifest import MANIFEST_FILE
from albef.model.verbs import HEADS, VisionLanguageModel
from albef.writing import whole_folder

FORMAT_VERSION = 1
RESIZES = {fit: f"bicubic-antialiased-{fit}" for fit in ("stretch", "crop")}
CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE, CARD_FILE, ANSWERS_FILE, TEACHER_FILE, QUEUE_FILE = FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "README.md",
    "answers.json",  # in models for questions
    "teacher.safetensors",  # in models that training may continue from
    "queue.safetensors",
)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


@dataclasses.dataclass(frozen=True)
class Trained:
    """The last task that a model was trained for, and its data (`data.source` with its last folder only)."""

    task: TaskName
    data: str


def save_model(
    folder: Path,
    model: VisionLanguageModel,
    tokenizer: AnyTokenizer,
    card: str,
    answers: Sequence[str] = (),
    trained: Trained | None = None,
) -> None:
    """Writes a model directory that `Engine.load` reads: configuration, weights, tokenizer and model card.

    `answers` are the default candidates of a model for questions. `trained` is its last task and its data, if known.

    The folder is written whole or not at all. An existing model is replaced. Raises `UserError` if the folder holds
    anything else.
    """
    check_name(folder)
    with whole_folder(folder, FILES) as temporary:
        write_description(temporary, model, tokenizer, card, answers, trained)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
        save_file(weights, temporary / WEIGHTS_FILE, metadata={"format": "pt"})


def check_name(folder: Path) -> None:
    """Raises `UserError` for a path that is not UTF-8. Weights could be written there, but never be read."""
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{folder}: this path is not UTF-8, but the library that stores weights needs UTF-8. Choose another "
            f"folder."
        ) from None


def write_description(
    folder: Path,
    model: VisionLanguageModel,
    tokenizer: AnyTokenizer,
    card: str,
    answers: Sequence[str] = (),
    trained: Trained | None = None,
) -> None:
    """Writes all files of a model directory except the weights, into an existing folder."""
    facts = {
        "format_version": FORMAT_VERSION,
        "heads": list(model.heads),
        "resize": RESIZES[model.config.fit],
    }
    history = {"trained": dataclasses.asdict(trained)} if trained else {}
    config = facts | history | dataclasses.asdict(model.config)
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n", "utf-8")
    tokenizer.save(folder / TOKENIZER_FILE, model.config)
    (folder / CARD_FILE).write_text(card, "utf-8", errors="replace")  # file names may not be UTF-8
    if answers:
        (folder / ANSWERS_FILE).write_text(json.dumps(list(answers), indent=0), "utf-8")


def find_model(source: str | Path) -> tuple[Path, str]:
    """The model directory that a user names, and the name by which it can be found again."""
    reading.set(source)
    path = Path(os.path.expanduser(source))
    for folder in (path / "model", path):
        if folder.is_dir():
            return folder, str(folder.resolve())
    if path.is_file():
        raise UserError(
            f"{source}: is a file, but a model is a folder. Make one: albef import {source} --out DIR."
        )
    # A path below an existing folder is a path with a typo, not a hub id: the network is not asked.
    if not HUB_ID.fullmatch(str(source)) or path.parent.is_dir():
        raise UserError(
            f"{source}: no such folder. Give a run, a model directory or a Hugging Face hub id (owner/name)."
        )
    return Path(download(str(source))), str(source)


def download(hub_id: str) -> str:
    """The folder with the local copy of a model from the Hugging Face hub."""
    from huggingface_hub import snapshot_download

    try:
        return snapshot_download(hub_id, allow_patterns=[*FILES, MANIFEST_FILE])
    except (OSError, ValueError) as error:  # the base classes of the library's errors
        reason = next(iter(str(error).split("\n")), "").strip().rstrip(".") or type(error).__name__
        raise UserError(
            f"{hub_id}: no such folder, and the Hugging Face hub gave no model of this name ({reason})."
        ) from None


def read_config(file: Path) -> tuple[ModelConfig, tuple[str, ...]]:
    """The configuration in a `config.json`, and the heads that the model has."""
    try:
        stored: Any = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}. Give a finished run or a model directory.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as JSON ({error}). Save the model again.") from None
    version = stored.get("format_version") if isinstance(stored, dict) else None
    if version is None:
        raise UserError(
            f"{file}: not the configuration of a model directory: it has no format_version. Make a model directory of "
            f"a published model: albef import {file.parent} --out DIR."
        )
    if version != FORMAT_VERSION:
        raise UserError(
            f"{file}: format_version is {version!r}, but this albef reads {FORMAT_VERSION}. "
            f"Update albef, or save the model again with this version."
        )
    fields = {field.name for field in dataclasses.fields(ModelConfig)}
    stored = LATER | stored
    if stored.get("resize") != (expected := RESIZES.get(str(stored["fit"]))):
        raise UserError(
            f"{file}: resize is {stored.get('resize')!r}, but this albef only has {expected!r}. Update albef."
        )
    values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in stored.items()}
    heads = values.pop("heads", None)
    known = next((HEADS[name] for name in HEADS if name == stored["system"]), ())
    # An unknown system is told below.
    if not (isinstance(heads, tuple) and heads and (not known or all(head in known for head in heads))):
        raise UserError(
            f"{file}: heads is {stored.get('heads')!r}, but it must be a list of {', '.join(known)}."
        )
    values.pop("trained", None)
    del values["format_version"], values["resize"]
    if lacking := sorted(fields - set(values)):
        raise UserError(f"{file}: lacks {lacking[0]}. Save the model again.")
    if unknown := sorted(set(values) - fields):
        near = difflib.get_close_matches(unknown[0], fields, 1)
        hint = f"Did you mean {near[0]}?" if near else "Remove it."
        raise UserError(f"{file}: unknown key {unknown[0]}. {hint}")
    try:
        return ModelConfig(**values), heads
    except UserError as error:
        raise UserError(f"{file}: {error} Correct it, or save the model again.") from None


def read_trained(file: Path) -> Trained | None:
    """What a `config.json` says about the training. None if it says nothing."""
    stored = json.loads(file.read_text("utf-8")).get("trained")
    if stored is None:
        return None
    if not (isinstance(stored, dict) and stored.get("task") in get_args(TaskName)):
        raise UserError(
            f'{file}: "trained" must be {{"task": …, "data": …}} with a known task. Correct or remove it.'
        )
    return Trained(stored["task"], str(stored.get("data", "")))


def read_answers(file: Path) -> list[str]:
    """The answers in a JSON list, each a text or, as in LXMERT's all_ans.json, an object that has it under "ans".

    An object of answers with their numbers, as UNITER's ans2label.json, is such a list too. Raises `UserError` for
    anything else.
    """
    try:
        found = json.loads(file.read_text("utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: cannot be read as a JSON list of answers ({error}).") from None
    if isinstance(found, dict):
        by_number = {number: answer for answer, number in found.items() if type(number) is int}
        found = [by_number.get(number) for number in range(len(found))]
    listed = found if isinstance(found, list) else []
    answers: list[Any] = [one.get("ans") if isinstance(one, dict) else one for one in listed]
    if not (answers and all(isinstance(answer, str) for answer in answers)):
        raise UserError(f'{file}: not a list of answers. Write ["yes", "no", …].')
    return answers


def read_weights(file: Path, expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file in fp32. Raises `UserError` unless they have the expected names and shapes."""
    found = read_tensors(file)
    check_weights(file, found, expected)
    return {name: tensor.float() for name, tensor in found.items()}


def check_weights(file: Path, found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises `UserError` unless tensors from a file have the expected names and shapes."""
    problems = [f"{name} is missing" for name in expected if name not in found]
    problems += [f"{name} is unknown" for name in found if name not in expected]
    problems += [
        f"{name} is {list(found[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in found and found[name].shape != tensor.shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"{file}: the weights do not fit config.json ({'; '.join(problems[:3])}{more}). "
            f"Take both files from the same model."
        )


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file. Raises `UserError` if it is not one."""
    try:
        return load_file(file)
    except (OSError, SafetensorError) as error:
        raise UserError(f"{file}: cannot be read as safetensors ({error}). Copy it again.") from None
