"""What lies beside published weights: a configuration, and the vocabulary of systems on BERT's layers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from albef.config import ModelConfig, UserError
from albef.data.text import Tokenizer
from albef.exchange.choices import Choices
from albef.exchange.fitting import check_vocabulary
from albef.exchange.structure import HEAD_WIDTH
from albef.model_directory import CONFIG_FILE, TOKENIZER_FILE

VOCABULARY_FILE = "vocab.txt"  # BERT's format: a token per line
# What BERT's layers have here, as all published files do.
OF_BERT = {"hidden_act": "gelu", "layer_norm_eps": 1e-12, "img_layer_norm_eps": 1e-12}


def read_config(file: Path) -> dict[str, Any]:
    """A JSON object; an empty one where there is no file. Raises `UserError` for other content."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UserError(f"{file}: not a JSON object; get it again, or remove it.")
    return found


def not_ours(model: str, file: Path, key: str, value: object) -> UserError:
    """The refusal of a configuration that the model here does not have."""
    return UserError(
        f"{file}: its configuration says {key}: {str(value)[:60]}, which {model} as published does not have; it is "
        f"another model."
    )


def bert_config(file: Path, key: str, model: str) -> dict[str, Any]:
    """The config.json beside a file of weights. Empty where there is none with `key`, which such a model's has.

    Raises `UserError` for settings under which the same weights compute something else.
    """
    found = read_config(file.with_name(CONFIG_FILE))
    if key not in found:
        return {}
    for name, usual in OF_BERT.items():
        if found.get(name, usual) != usual:
            raise not_ours(model, file, name, found[name])
    return found


def heads_of_layers(width: int, choices: Sequence[int], config: Mapping[str, Any], file: Path) -> int:
    """The number of attention heads in each of BERT's layers: chosen, as the configuration says, or 64 channels wide.

    Raises `UserError` for numbers that do not divide the width.
    """
    said = config.get("num_attention_heads")
    if len(set(choices)) > 1:
        raise UserError(f"{file}: all its layers have as many attention heads; give one number with --heads.")
    if not choices and said is None and width % HEAD_WIDTH:
        raise UserError(
            f"{file}: its layers are {width} wide, which is no multiple of {HEAD_WIDTH}; say how many attention heads "
            f"each has with --heads N."
        )
    count = choices[0] if choices else width // HEAD_WIDTH if said is None else said
    if type(count) is not int or count < 1 or width % count:
        raise UserError(
            f"{file}: its layers are {width} wide, which {count!r} attention heads do not divide; say how many each has "
            f"with --heads N."
        )
    return count


def bert_tokenizer(
    choices: Choices, beside: Path | None, vocab_size: int, file: Path
) -> tuple[Tokenizer, str]:
    """The tokenizer that is chosen, or lies in the folder `beside`, or BERT's uncased one; and whose it is.

    Raises `UserError` for one with more tokens than the model has word embeddings.
    """
    there = [beside / name for name in (TOKENIZER_FILE, VOCABULARY_FILE)] if beside else []
    place = choices.tokenizer or next((one for one in there if one.is_file()), None)
    if place is None:
        tokenizer, whose = Tokenizer.bert(), "that of bert-base-uncased"
    else:
        read = Tokenizer.of_vocabulary if place.suffix == ".txt" else Tokenizer.load
        tokenizer, whose = read(place), str(place)
    check_vocabulary(vocab_size, tokenizer.vocab_size, file)
    return tokenizer, whose


def vocabulary_of(tokenizer: Tokenizer) -> list[str]:
    """All tokens, in the order of their ids."""
    return tokenizer.pieces(range(tokenizer.vocab_size))


def is_bert_s(tokenizer: Tokenizer) -> bool:
    """Whether these are the tokens of bert-base-uncased."""
    as_many = tokenizer.vocab_size == ModelConfig.vocab_size
    return as_many and vocabulary_of(tokenizer) == vocabulary_of(Tokenizer.bert())
