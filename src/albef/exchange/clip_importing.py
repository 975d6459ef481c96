"""Converts a published file of CLIP to a model directory."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import torch

from albef.config import SIZES, ModelConfig, UserError
from albef.exchange.account import Row
from albef.exchange.choices import Choices
from albef.exchange.clip_files import ClipFile, clip_of, resized
from albef.exchange.converted import write_converted
from albef.exchange.pth import Published
from albef.exchange.structure import HEAD_WIDTH, Structure
from albef.model_directory import TOKENIZER_FILE, Trained
from albef.peers.clip import CLIP
from albef.peers.clip_text import ClipTokenizer

# Why a name is left out, by the end of the name.
NO_WEIGHTS = {
    "attn_mask": "the causal mask, which the model makes itself",
    "position_ids": "the numbers 0, 1, 2, …",
}
PARTS = ("image encoder", "text encoder", "logit_scale")
NAMES_OF = {"openai": "OpenAI", "custom-text": "open_clip's CustomTextCLIP", "hugging-face": "Hugging Face"}


def import_clip(opened: Published, folder: Path, choices: Choices) -> tuple[Structure, list[Row]]:
    """Writes a model directory from a published CLIP. Returns what it was, and what happened to its parts.

    The weights are written in fp32, one at a time. Raises `UserError` as `read_clip` does, and for a tokenizer that has
    other tokens than the model.
    """
    choices.refuse(("append_sep", "answers"), opened.file, "a CLIP")
    found = clip_of(opened, choices.heads, choices.activation)
    stored = found.config
    if choices.image_size is not None:
        found = resized(found, choices.image_size)
    tokenizer = tokenizer_of(found, opened.file, choices.tokenizer)
    as_large = tokenizer.vocab_size == SIZES["clip-vit-b-32"].vocab_size
    own = not (as_large and tokenizer.merges == ClipTokenizer.published().merges)
    config = dataclasses.replace(found.config, vocabulary="trained" if own else "clip")
    with torch.device("meta"):
        model = CLIP(config)
    card, trained = clip_card(opened.file, found), Trained("pretrain", opened.file.name)
    write_converted(folder, model, tokenizer, card, trained, found.weight)
    structure = Structure(f"CLIP, {found.size_label()}", "pretrain", model.heads, has_teacher=False)
    return structure, account(opened, found, stored, choices, own)


def tokenizer_of(found: ClipFile, file: Path, given: Path | None) -> ClipTokenizer:
    """The tokenizer that is given, or lies beside the file together with its configuration, or the published one."""
    beside = file.with_name(TOKENIZER_FILE)
    place = given or (beside if found.told.source and beside.is_file() else None)
    tokenizer = ClipTokenizer.load(place) if place else ClipTokenizer.published()
    if tokenizer.vocab_size != found.config.vocab_size:
        raise UserError(
            f"{file}: has {found.config.vocab_size:,} token embeddings, but {place or 'the vocabulary of CLIP'} has "
            f"{tokenizer.vocab_size:,} tokens; give the tokenizer that it was trained with "
            f"(--tokenizer tokenizer.json)."
        )
    return tokenizer


def account(
    opened: Published, found: ClipFile, stored: ModelConfig, choices: Choices, own_tokenizer: bool
) -> list[Row]:
    """A row for each part: loaded, ignored (with the reason), or assumed."""
    config, told = found.config, found.told
    parts = Counter(part_of(name) for name in found.published)
    halves = any(tensor.dtype != torch.float32 for tensor in found.published.values())
    rows = [Row("loaded", part, parts[part], "stored in fp32" if halves else "") for part in PARTS]
    ends = Counter(name.rpartition(".")[2] for name in found.left_out)
    rows += [
        Row("ignored", end, count, NO_WEIGHTS.get(end, "a size, which the shapes show"))
        for end, count in ends.items()
    ]
    rows += [Row("ignored", name, None, "not of the model") for name in opened.beside]
    if choices.activation or not told.source:
        why = "as you said" if choices.activation else "as in all archives of OpenAI"
        rows.append(Row("assumed", "activation", None, f"{config.activation}, {why}"))
    else:
        rows.append(Row("loaded", "activation", None, f"{config.activation}, from {told.source}"))
    channels = {config.image_width // config.image_heads, config.text_width // config.text_heads}
    each = f", {HEAD_WIDTH} channels each" if channels == {HEAD_WIDTH} else ""
    why = f"{config.image_heads} (image) and {config.text_heads} (text){each}"
    rows.append(Row("assumed", "heads", None, why))
    whose = "its own" if own_tokenizer else "CLIP's"
    rows.append(Row("assumed", "tokenizer", None, f"{whose}, {config.vocab_size:,} byte pairs"))
    if stored.grid != config.grid:
        size = f"{stored.grid} × {stored.grid} to {config.grid} × {config.grid}"
        rows.append(Row("assumed", "image size", None, f"{config.image_size}: positions resized from {size}"))
    if not opened.mapped:
        rows.append(Row("assumed", "memory", None, "a file from before torch 1.6, which was loaded whole"))
    return rows


def part_of(name: str) -> str:
    """The part of the model, one of `PARTS`, that a published name belongs to."""
    image, text, scale = PARTS
    return scale if name == "logit_scale" else image if name.startswith("vis") else text


def clip_card(file: Path, found: ClipFile) -> str:
    """The model card of an imported model: where its weights come from."""
    config = found.config
    return f"""---
library_name: albef
---
# A CLIP model, imported

The weights of `{file.name}`, a CLIP under the names of {NAMES_OF[found.naming]}, under this library's names and in fp32.
Nothing was trained here. Images of {config.image_size} pixels; the activation is {config.activation}.

```python
from albef import Engine
engine = Engine.load("path/to/this/folder")
```

The licence is that of the published file (OpenAI's code is MIT; its model card says what the models are for); so are the
data it was trained on and their biases. Method: Radford et al., "Learning Transferable Visual Models From Natural
Language Supervision", ICML 2021.
"""
