"""How a system reads texts: its cleaning, its tokenizer, how long a text may be, and how it ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64

from albef.config import DataConfig, ModelConfig
from albef.data.text import Tokenizer, clean_caption, clean_question, mask_tokens

Ids = Int64[np.ndarray, " length"]


@runtime_checkable
class AnyTokenizer(Protocol):
    """What all tokenizers have, whatever their system."""

    vocab_size: int  # every id is below it
    pad_id: int

    def save(self, file: Path, config: ModelConfig) -> None:
        """Writes a `tokenizer.json`, for texts as a model with this configuration reads them."""


@runtime_checkable
class Words(Protocol):
    """Texts as a system reads them. A text is cleaned first, and encoded then."""

    @property
    def tokenizer(self) -> Any:
        """The system's tokenizer, an `AnyTokenizer`."""

    def clean(self, text: str) -> str:
        """A caption as the model reads it. Empty if the text says nothing."""

    def clean_question(self, text: str) -> str:
        """A question as the model reads it."""

    def encode(self, cleaned: str) -> Ids:
        """The ids that the model gets: with all special tokens, cut to its longest text."""

    def are_empty(self, ids: Ids) -> bool:
        """Whether ids that `encode` gave hold no token of the text."""

    def encode_answer(self, answer: str) -> Ids:
        """The ids of an answer, which is not cleaned and only cut to the positions that there are."""

    def encode_tags(self, tags: Sequence[str] | None) -> Ids:
        """The ids of the names of an image's objects, as `Tags` has them. Empty without tags."""

    def content(self, cleaned: str) -> Ids:
        """The ids of the text alone: without special tokens, and not cut."""

    def num_cut(self, cleaned: str) -> int:
        """How many tokens of the text `encode` leaves out."""

    def are_known(self, content: Ids) -> bool:
        """Whether the model knows any of these tokens."""

    def mask(
        self, ids: Ids, data: DataConfig, rng: np.random.Generator
    ) -> tuple[Ids, Bool[np.ndarray, " length"]]:
        """Masked ids, and which tokens are to be predicted."""


class BertWords:
    """BERT's words: `[CLS] tokens`, and [SEP] if the model's texts end in it."""

    def __init__(self, tokenizer: Tokenizer, config: ModelConfig) -> None:
        self.tokenizer, self.config = tokenizer, config

    def clean(self, text: str) -> str:
        """As `clean_caption`, cut to the model's number of words."""
        return clean_caption(text, self.config.max_words)

    def clean_question(self, text: str) -> str:
        """As `albef.data.text.clean_question`, cut to the model's number of words."""
        return clean_question(text, self.config.max_words)

    def encode(self, cleaned: str) -> Ids:
        """Ids of at most `max_tokens` tokens."""
        return self.tokenizer.encode(cleaned, self.config.max_tokens, self.config.append_sep)

    def are_empty(self, ids: Ids) -> bool:
        """Whether there are special tokens alone."""
        return len(ids) <= 1 + self.config.append_sep

    def encode_answer(self, answer: str) -> Ids:
        """Ids of `[CLS] tokens [SEP]`."""
        return self.tokenizer.encode(answer, self.config.max_positions, append_sep=True)

    def encode_tags(self, tags: Sequence[str] | None) -> Ids:
        """Ids of `tokens [SEP]`, where the names are joined by spaces."""
        if not tags:
            return np.zeros(0, np.int64)
        return self.tokenizer.encode(" ".join(tags), self.config.max_positions, append_sep=True)[1:]

    def content(self, cleaned: str) -> Ids:
        """Ids of the tokens alone."""
        return self.tokenizer.encode(cleaned, self.config.max_positions, append_sep=False)[1:]

    def num_cut(self, cleaned: str) -> int:
        """How many tokens are beyond `max_tokens`."""
        room = self.config.max_tokens - 1 - self.config.append_sep
        return max(0, len(self.content(cleaned)) - room)

    def are_known(self, content: Ids) -> bool:
        """Whether one of the tokens is in the vocabulary."""
        return bool((content != self.tokenizer.unk_id).any())

    def mask(
        self, ids: Ids, data: DataConfig, rng: np.random.Generator
    ) -> tuple[Ids, Bool[np.ndarray, " length"]]:
        """As `mask_tokens`."""
        return mask_tokens(ids, data.mlm_probability, self.tokenizer, rng, data.mlm_content_only)

    def places(self, cleaned: str) -> list[tuple[str, list[int]]]:
        """The words of the text, each with the positions of its tokens in the result of `encode`."""
        return self.tokenizer.words(cleaned, self.config.max_tokens, self.config.append_sep)


class UncleanedWords(BertWords):
    """BERT's words of texts as they are given, of any number of words."""

    def clean(self, text: str) -> str:
        """The text without white space around it."""
        return text.strip()

    def clean_question(self, text: str) -> str:
        """The question without white space around it."""
        return text.strip()
