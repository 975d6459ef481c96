"""What a published file does not say about itself, so that whoever imports it says it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args

from albef.config import UserError
from albef.model_config import Activation, SystemName

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
# The forms of `albef export --to`, each with the systems that have it. openai is a file, the others are folders.
EXPORTS: dict[str, tuple[SystemName, ...]] = {
    "openai": ("clip",),
    "open-clip": ("clip",),
    "open-clip-custom-text": ("clip",),
    "hugging-face": ("clip", "lxmert"),
    "pytorch-transformers": ("oscar",),
}


class Choices(NamedTuple):
    """The options of `albef import`."""

    image_size: int | None = None  # pixels a side; position embeddings are resized to it
    heads: tuple[
        int, ...
    ] = ()  # of image and text encoder, or one number for both; empty: 64 channels per head
    append_sep: bool | None = None  # whether texts end in [SEP]; None: from the file or its name
    tokenizer: Path | None = None  # None: that of the published models
    answers: Path | None = None  # default candidates of a model for questions
    activation: Activation | None = None  # None: from the file or its configuration

    def refuse(self, names: Sequence[str], file: Path, model: str) -> None:
        """Raises `UserError` if one of these was chosen although it means nothing to such a model."""
        for name in names:
            if getattr(self, name) is not None:
                raise UserError(
                    f"{file}: is {model}, for which --{name.replace('_', '-')} means nothing; leave it out."
                )
