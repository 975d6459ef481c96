"""Whether what is imported belongs together: the tensors of a file, the list of answers, the tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from albef.config import UserError
from albef.exchange.choices import Choices
from albef.exchange.stream import TYPES
from albef.model_directory import read_answers


def check_fit(
    state: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    tied: Mapping[str, str],
    file: Path,
    model: str,
) -> None:
    """Raises `UserError` unless a state dict has all tensors that are expected.

    `tied` are second names of tensors: they may be absent, but must be equal to the first.
    """
    problems = [f"{name} is missing" for name in expected if name not in state and name not in tied]
    problems += [
        f"{name} is {list(state[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    refuse_misfits(problems + no_floats(state, expected), file)
    check_tied(state, {second: first for second, first in tied.items() if second in expected}, file, model)


def check_foundation(state: Mapping[str, Tensor], names: Sequence[str], file: Path, model: str) -> None:
    """Raises `UserError` unless a state dict has these matrices, from which the sizes of such a model are read."""
    for name in names:
        if name not in state or state[name].dim() != 2:
            first = ", ".join(list(state)[:3]) or "no tensors at all"
            raise UserError(
                f"{file}: is not one of the published {model} models: it has no matrix {name} (but {first}, …). Give a "
                f"whole checkpoint of {model}."
            )


def no_floats(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Expected tensors of a state dict that hold no numbers with a point, each with what it holds."""
    return [
        f"{name} holds {state[name].dtype}"
        for name in expected
        if name in state and (state[name].dtype not in TYPES or not state[name].is_floating_point())
    ]


def refuse_misfits(problems: Sequence[str], file: Path) -> None:
    """Raises `UserError` if tensors do not fit together. It names the first three problems."""
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise UserError(
            f"{file}: its parts do not fit together ({'; '.join(problems[:3])}{more}). The expected widths are those "
            f"of the embeddings and the first layers, so this model was changed or is damaged. Take the published one."
        )


def check_tied(state: Mapping[str, Tensor], tied: Mapping[str, str], file: Path, model: str) -> None:
    """Raises `UserError` if a second name of a tensor holds something else than the first."""
    for second, first in tied.items():
        if second in state and first in state and not torch.equal(state[second], state[first]):
            raise UserError(
                f"{file}: {second} differs from {first}, but in {model} they are equal. This is another model."
            )


def listed_answers(choices: Choices, num_answers: int, file: Path) -> list[str]:
    """The chosen list of answers; empty without one. Raises `UserError` unless the model scores as many."""
    answers = read_answers(choices.answers) if choices.answers else []
    if answers and not num_answers:
        raise UserError(f"{file}: scores no answers from a list; leave --answers out.")
    if answers and len(answers) != num_answers:
        raise UserError(
            f"{choices.answers}: lists {len(answers)} answers, but {file.name} scores {num_answers}; give the list that "
            f"it was trained with."
        )
    return answers


def check_vocabulary(vocab_size: int, num_tokens: int, file: Path) -> None:
    """Raises `UserError` for a tokenizer of BERT's kind with more tokens than the model has word embeddings."""
    if num_tokens > vocab_size:
        raise UserError(
            f"{file}: has {vocab_size} word embeddings, but the tokenizer has {num_tokens} tokens. "
            f"Give the tokenizer that it was trained with (--tokenizer tokenizer.json)."
        )
