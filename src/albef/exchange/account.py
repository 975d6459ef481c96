"""What happened to the parts of an imported checkpoint: the table, and the model card."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from rich.table import Table
from torch import Tensor

from albef.config import ModelConfig
from albef.exchange.pth import Published
from albef.exchange.structure import HEAD_WIDTH, QUEUES, TEACHER, Structure
from albef.model import checkpoints


class Row(NamedTuple):
    """What happened to a part."""

    fate: Literal["loaded", "written", "ignored", "missing", "assumed"]
    part: str
    tensors: int | None
    why: str


def account(
    published: Published,
    teacher: Mapping[str, Tensor],
    queue: Mapping[str, Tensor],
    structure: Structure,
    config: ModelConfig,
    own: Mapping[str, Tensor],
) -> list[Row]:
    """A row for each part: loaded, ignored (with the reason), missing (with the substitute), or assumed."""
    used = checkpoints.split_published(own, config)
    tied = checkpoints.tied_names(used, config)
    loaded: Counter[str] = Counter()
    ignored: Counter[tuple[str, str]] = Counter()
    for name, tensor in published.state.items():
        copy = TEACHER.fullmatch(name)
        as_student = f"{copy[1]}.{copy[2]}" if copy else name
        (as_student,) = checkpoints.pretrained({as_student: tensor})
        component = name.partition(".")[0]
        if name in QUEUES and queue:
            loaded["queue"] += 1
        elif name in QUEUES:
            ignored["queue", "not whole, or this model has none"] += 1
        elif copy and not teacher:
            ignored["teacher", "not whole, or this model has none"] += 1
        elif as_student in used:
            loaded["teacher" if copy else component] += 1
        elif as_student.endswith(".position_ids"):
            ignored["position_ids", "the numbers 0, 1, 2, …"] += 1
        elif as_student in tied:
            ignored["second names", "of tensors that are loaded; checked to be equal"] += 1
        else:
            ignored[component, "no part of the published model"] += 1
    beside = "stored beside the model, for training that goes on from it"
    rows = [
        Row("loaded", part, count, beside if part in ("teacher", "queue") else "")
        for part, count in loaded.items()
    ]
    rows += [Row("ignored", part, count, why) for (part, why), count in ignored.items()]
    rows += [Row("ignored", name, None, "not of the model") for name in published.beside]
    if structure.has_teacher and not teacher:
        rows.append(Row("missing", "teacher", None, "training starts with a copy of the student"))
    if structure.has_queue and not queue:
        rows.append(Row("missing", "queue", None, "training starts with an empty one"))
    return rows + assumptions(published, structure, config)


def assumptions(published: Published, structure: Structure, config: ModelConfig) -> list[Row]:
    """Settings that tensors do not show, with the values that were assumed."""
    rows = []
    if structure.name == "retrieval/grounding":
        rows.append(
            Row("assumed", "task", None, "retrieval; a model for grounding looks the same and is used alike")
        )
    wide = {config.image_width // config.image_heads, config.text_width // config.text_heads}
    why = f"{config.image_heads} (image) and {config.text_heads} (text)"
    rows.append(
        Row("assumed", "heads", None, why + (f", {HEAD_WIDTH} channels each" if wide == {HEAD_WIDTH} else ""))
    )
    end = "texts end in [SEP], as LAVIS trains" if config.append_sep else "texts have no [SEP], as published"
    rows.append(Row("assumed", "[SEP]", None, end))
    grid = math.isqrt(published.state["visual_encoder.pos_embed"].shape[1] - 1)
    if grid != config.grid:
        size = f"{grid} × {grid} to {config.grid} × {config.grid}"
        rows.append(Row("assumed", "image size", None, f"{config.image_size}: positions resized from {size}"))
    if not published.mapped:
        rows.append(Row("assumed", "memory", None, "a file from before torch 1.6, which was loaded whole"))
    return rows


def table(title: str, rows: Sequence[Row]) -> Table:
    """The rows for the terminal."""
    found = Table("", "part", "tensors", "", title=title)
    for fate, part, tensors, why in rows:
        found.add_row(fate, part, "" if tensors is None else str(tensors), why)
    return found


def model_card(file: Path, structure: Structure, config: ModelConfig) -> str:
    """The model card of an imported model: where its weights come from."""
    return f"""---
library_name: albef
---
# An ALBEF model, imported

The weights of `{file.name}`, a checkpoint of the published structure "{structure.name}", under this library's names.
Nothing was trained here. Images of {config.image_size} pixels; texts {"end" if config.append_sep else "do not end"}
in [SEP].

```python
from albef import Engine
engine = Engine.load("path/to/this/folder")
```

The licence is that of the checkpoint (the published ones come with a BSD-3-Clause repository, salesforce/ALBEF); so are
the data it was trained on and their biases. Method: Li et al., "Align before Fuse: Vision and Language Representation
Learning with Momentum Distillation", NeurIPS 2021.
"""
