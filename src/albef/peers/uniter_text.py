"""UNITER's texts: words as they are written, upper case included."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from jaxtyping import Bool

from albef.config import DataConfig, ModelConfig
from albef.data.text import SPECIALS, Tokenizer, mask_tokens
from albef.data.words import Ids, UncleanedWords


class CasedTokenizer(Tokenizer):
    """BERT's WordPiece over words as they are written. The published vocabulary is that of bert-base-cased."""

    lower_case: ClassVar[bool] = False


class UniterWords(UncleanedWords):
    """UNITER's words: `[CLS] tokens [SEP]` of a text that is not cleaned."""

    def __init__(self, tokenizer: CasedTokenizer, config: ModelConfig) -> None:
        super().__init__(tokenizer, config)
        # The published code replaces words by ids from that of "!". Before it are special and unused tokens.
        exclamation = tokenizer.encode("!", max_tokens=2, append_sep=False)[-1]
        known = exclamation != tokenizer.unk_id
        self.first_id = int(exclamation) if known else len(SPECIALS)

    def mask(
        self, ids: Ids, data: DataConfig, rng: np.random.Generator
    ) -> tuple[Ids, Bool[np.ndarray, " length"]]:
        """As `mask_tokens`, but if no token was drawn, the first one of the text becomes [MASK], as published."""
        probability, fillers = data.mlm_probability, data.mlm_content_only
        masked, chosen = mask_tokens(ids, probability, self.tokenizer, rng, fillers, self.first_id)
        if not chosen.any() and not self.are_empty(ids) and probability > 0:
            masked[1], chosen[1] = self.tokenizer.mask_id, True
        return masked, chosen
