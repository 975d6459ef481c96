"""Writes the model directory of a converted file, and says what became of the file's parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from albef.data.words import AnyTokenizer
from albef.disk import check_room
from albef.exchange.account import Row
from albef.exchange.pth import Published
from albef.exchange.stream import Place, write_tensors
from albef.model.verbs import VisionLanguageModel
from albef.model_config import SystemName
from albef.model_directory import FILES, WEIGHTS_FILE, Trained, write_description
from albef.progress import track
from albef.systems import SYSTEMS
from albef.writing import whole_folder


def write_converted(
    folder: Path,
    model: VisionLanguageModel,
    tokenizer: AnyTokenizer,
    card: str,
    trained: Trained,
    weight: Callable[[str], Tensor],
    answers: Sequence[str] = (),
) -> None:
    """Writes a model directory in fp32. `model` is on the meta device; `weight` gives a tensor by its name in it.

    Tensors are made one at a time. Raises `UserError` if the disk has too little room.
    """
    places = {name: Place(torch.float32, tensor.shape) for name, tensor in model.state_dict().items()}
    check_room(folder, sum(4 * place.shape.numel() for place in places.values()))
    with whole_folder(folder, FILES) as temporary:
        write_description(temporary, model, tokenizer, card, answers, trained)
        weights = (weight(name).float() for name in track(places, "writing the model", len(places)))
        write_tensors(temporary / WEIGHTS_FILE, places, weights)


def card_of_regions(file: Path, system: SystemName, what: str) -> str:
    """The model card of an imported model that sees regions: where its weights come from."""
    title = SYSTEMS[system].title
    a = "a" if title[0] == "U" else "an"
    return f"""---
library_name: albef
---
# {a.capitalize()} {title}, imported

The weights of `{file.name}`, {a} {title} ({what}), under this library's names and in fp32. Nothing was trained here.
Images come as regions, which a detector found.

The licence is that of the published file (its code is MIT); so are the data it was trained on and their biases. Method:
{SYSTEMS[system].paper}.
"""


def account_of_parts(
    opened: Published,
    state: Collection[str],
    own: Mapping[str, Sequence[str]],
    tied: Collection[str],
    parts: Mapping[str, str],
) -> list[Row]:
    """A row for each part of a file: loaded, or ignored with the reason.

    `state` are the file's names, `own` the file's names of each tensor of ours, `tied` second names, `parts` how to call
    what our names begin with (all else: heads).
    """
    loaded = Counter(parts.get(name.partition(".")[0], "heads") for name in own)
    used = {part for names in own.values() for part in names}
    told = [Row("loaded", part, count, "") for part, count in loaded.items()]
    if second := [name for name in tied if name in state]:
        why = "of tensors that are loaded; checked to be equal"
        told.append(Row("ignored", "second names", len(second), why))
    if others := [name for name in state if name not in used and name not in tied]:
        told.append(Row("ignored", others[0], len(others), "no part of the published model"))
    return told + [Row("ignored", name, None, "not of the model") for name in opened.beside]
