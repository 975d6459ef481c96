"""Classes told apart by their names alone: one feature per class, out of sentences made from templates."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from albef.config import UserError
from albef.engine.preparing import Preparing, texts_of
from albef.errors import printable
from albef.model.verbs import unit

PLAIN = "a photo of a {}."  # the template if none is given: the simplest of CLIP's


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


def sentences_of_classes(prepare: Preparing, names: Iterable[str], templates: Iterable[str]) -> list[str]:
    """The `sentences` of classes that a model can tell apart.

    Raises `UserError` for fewer than two classes, for names that the model reads alike, for a name without a word that
    it knows, and for templates without "{}".
    """
    classes, wordings = texts_of(names, "names"), texts_of(templates, "templates")
    if len(classes) < 2:
        raise UserError(f"A choice needs at least two classes: give their names ({len(classes)} given).")
    if not wordings:
        raise UserError(f"There are no templates: give at least one, such as {PLAIN!r}.")
    for template in wordings:
        check_template(template, "templates")
    seen: dict[bytes, str] = {}
    for name in classes:
        prepare.check_says_something(name, "class name")
        read = prepare.text_tokens(sentences([name], wordings))[0].numpy().tobytes()
        if read in seen:
            raise UserError(
                f"{seen[read]!r} and {name!r} are the same class to this model, since it reads the same words: "
                "rename one, or leave it out."
            )
        seen[read] = name
    return sentences(classes, wordings)


def templates_of(name: str) -> tuple[str, ...]:
    """The templates of a text file; of the name "openai", OpenAI's 80."""
    return openai_templates() if name == "openai" else read_templates(Path(os.path.expanduser(name)))


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
            f"{file}: cannot be read ({error.strerror}); give a text file of templates, or openai."
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{file}: not UTF-8 text; save it as UTF-8.") from None
    if not templates:
        raise UserError(f"{file}: holds no templates; write one a line, such as: a photo of a {{}}.")
    for template in templates:
        check_template(template, str(file))
    return templates


def check_template(template: str, where: str) -> None:
    """Raises `UserError` for a template without a place for the name."""
    if "{}" not in template:
        raise UserError(
            f"{where}: {printable(template)[:60]!r} has no {{}} where the name of the class goes; add it."
        )


def parsed(text: str) -> tuple[str, ...]:
    """The lines that are not empty."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())
