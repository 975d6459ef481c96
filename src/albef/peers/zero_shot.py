"""Classes told apart by their names alone: one feature per class, out of sentences made from templates."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from albef.config import UserError
from albef.errors import printable
from albef.model.albef import unit


def class_features(
    features: Float[Tensor, "classes templates width"],
) -> Float[Tensor, "classes width"]:
    """A unit-length feature per class: the mean over the features of its sentences, which have unit length.

    An image belongs to the class whose feature is most similar to its own (Radford et al., 2021, §3.1.4).
    """
    return unit(features.mean(1))


def sentences(names: Sequence[str], templates: Sequence[str]) -> list[str]:
    """All sentences of the first class, then all of the second, and so on. "{}" in a template is the name's place."""
    return [template.replace("{}", name) for name in names for template in templates]


def openai_templates() -> tuple[str, ...]:
    """The 80 templates with which OpenAI measured CLIP on ImageNet."""
    return parsed((resources.files("albef.peers") / "clip_templates.txt").read_text("utf-8"))


def read_templates(file: Path) -> tuple[str, ...]:
    """The templates of a text file, one a line, such as "a photo of a {}.". Empty lines are left out.

    Raises `UserError` for a file without templates, and for a line without "{}".
    """
    try:
        templates = parsed(file.read_text("utf-8-sig"))
    except OSError as error:
        raise UserError(
            f"{file}: cannot be read ({error.strerror}); give a text file of templates."
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text; save it as UTF-8.") from None
    if not templates:
        raise UserError(f"{file}: holds no templates; write one a line, such as: a photo of a {{}}.")
    for template in templates:
        if "{}" not in template:
            raise UserError(
                f"{file}: {printable(template)[:60]!r} has no {{}} where the name of the class goes; add it."
            )
    return templates


def parsed(text: str) -> tuple[str, ...]:
    """The lines that are not empty."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())
