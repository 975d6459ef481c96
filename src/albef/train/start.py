"""The tokenizer and the model's sizes at the start of a training."""

from __future__ import annotations

import dataclasses
import os
from itertools import islice
from pathlib import Path
from typing import Any

from albef.config import Config, ModelConfig, UserError
from albef.data.sources import open_source
from albef.data.text import Tokenizer
from albef.model_directory import CONFIG_FILE, TOKENIZER_FILE, find_model, read_config
from albef.systems import SYSTEMS, check_system

VOCABULARY_CAPTIONS = 5000
VOCABULARY_FILE = "vocab.txt"  # BERT's format: a token per line


def initial_model(config: Config, known: ModelConfig | None = None) -> ModelConfig:
    """The configuration of the model to start from, with this recipe's image size, text length, dropout and new head.

    Which embeddings are not learned is the recipe's too. `known`: its configuration as noted by the run. Then the model
    itself need not exist any more. Raises `UserError` for a model of another system than the recipe's.
    """
    start, own = known or read_config(find_model(config.train.init)[0] / CONFIG_FILE)[0], config.model
    if own.system not in (ModelConfig.system, start.system):  # the default may be meant for any
        raise UserError(
            f"{config.train.init}: is a model of system {start.system}, but the recipe's model.system is {own.system}. "
            f"Start from a model of {own.system}, or take a recipe for {start.system}."
        )
    return dataclasses.replace(
        start,
        image_size=own.image_size,
        max_tokens=own.max_tokens,
        max_words=own.max_words,
        dropout=own.dropout,
        attention_dropout=own.attention_dropout,
        freeze_first_rows=own.freeze_first_rows,
        pair_head_scale=own.pair_head_scale,
    )


def choose_tokenizer(config: Config) -> Any:
    """The tokenizer of the model or BERT to start from, else the system's, or one trained on the data's first texts."""
    check_system(config)
    system = SYSTEMS[config.model.system]
    if config.train.init:
        return system.tokenizer.load(find_model(config.train.init)[0] / TOKENIZER_FILE)
    beside = Path(os.path.expanduser(config.train.init_text)) if config.train.init_text else None
    if beside and (beside / TOKENIZER_FILE).is_file():
        return Tokenizer.load(beside / TOKENIZER_FILE)
    if beside and (beside / VOCABULARY_FILE).is_file():
        return Tokenizer.of_vocabulary(beside / VOCABULARY_FILE)
    if config.model.vocabulary in system.vocabularies:
        return system.vocabularies[config.model.vocabulary]()
    source = open_source(config.data, "train", config.train.seed, config.model.image_size, config.task.name)
    records = (source.record(index, 0) for index in range(len(source)))
    texts = (
        text
        for record in islice(records, VOCABULARY_CAPTIONS)
        for text in (*record.captions, *record.answers)
    )
    cleaned = [system.clean(text, config.model) for text in texts]
    return system.tokenizer.train(cleaned, config.model.vocab_size)
