"""Captions → token ids: the published cleaning, a WordPiece tokenizer, and masking for MLM.

Special tokens in a text are read as plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import ClassVar

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from albef.config import ModelConfig, UserError
from albef.writing import write_whole

PAD, UNK, CLS, SEP, MASK = SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# English words that say nothing about an image. Words of place and number are not among them.
FILLERS = (
    "a an the this that these those some and or but as of on in at to for from by with it its is are be was were has "
    "have there here i you we they he she his her their can could will would very picture photo image drawing see "
    "seen look show"
)

_PUNCTUATION = str.maketrans({**dict.fromkeys(",.'!?\"()*#:;~", None), "-": " ", "/": " "})
_SPACES = re.compile(r"\s{2,}")


def clean_caption(text: str, max_words: int) -> str:
    """The caption in lower case, without punctuation, single-spaced, cut to `max_words`, as published."""
    text = text.lower().translate(_PUNCTUATION).replace("<person>", "person")
    text = _SPACES.sub(" ", text).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


def clean_question(text: str, max_words: int) -> str:
    """The question in lower case, without punctuation, cut to `max_words`, with its spacing, as published."""
    return " ".join(text.lower().translate(_PUNCTUATION).rstrip(" ").split(" ")[:max_words])


class Tokenizer:
    """BERT's WordPiece over lower-cased words without accents. A sequence is `[CLS] tokens`.

    Only code adds special tokens: "[MASK]" in a text is a bracket, a word and a bracket.
    """

    lower_case: ClassVar[bool] = True

    def __init__(self, wordpiece: tokenizers.Tokenizer) -> None:
        wordpiece.no_padding()
        wordpiece.no_truncation()
        wordpiece.encode_special_tokens = True  # so that a text cannot contain a special token
        self._wordpiece = wordpiece
        vocab = wordpiece.get_vocab(with_added_tokens=True)
        self.vocab_size = len(vocab)  # with special tokens; all ids are below it
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            vocab[token] for token in SPECIALS
        )
        self.filler_ids = np.array([vocab[word] for word in FILLERS.split() if word in vocab], dtype=np.int64)

    def __reduce__(self) -> tuple[object, ...]:
        return _from_json, (type(self), self._wordpiece.to_str())

    @classmethod
    def bert(cls) -> Tokenizer:
        """The tokenizer of bert-base-uncased, with 30,522 tokens."""
        text = (resources.files("albef.data") / "bert-base-uncased-vocab.txt").read_text("utf-8")
        pieces = {piece: number for number, piece in enumerate(text.split("\n")[:-1])}
        return cls(_wordpiece(pieces, cls.lower_case))

    @classmethod
    def of_vocabulary(cls, file: Path) -> Tokenizer:
        """BERT's tokenizer with the tokens of a `vocab.txt`, one a line.

        Raises `UserError` if a special one is missing, or any is there twice.
        """
        try:
            pieces = file.read_text("utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError:
            raise UserError(f"{file}: not UTF-8 text; get it again.") from None
        missing = [token for token in SPECIALS if token not in pieces]
        if missing:
            raise UserError(f"{file}: the vocabulary lacks {', '.join(missing)}; use a BERT-like one.")
        if len(set(pieces)) < len(pieces):
            twice = next(piece for number, piece in enumerate(pieces) if piece in pieces[:number])
            raise UserError(f"{file}: {twice!r} is in it twice, so its id is not clear; get the file again.")
        return cls(_wordpiece({piece: number for number, piece in enumerate(pieces)}, cls.lower_case))

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int) -> Tokenizer:
        """A tokenizer of at most `vocab_size` tokens trained on these captions. Equal captions give an equal one."""
        untrained = _wordpiece({UNK: 0}, cls.lower_case)
        captions = list(captions)
        normalise, split = untrained.normalizer.normalize_str, untrained.pre_tokenizer.pre_tokenize_str
        words = {word for caption in captions for word, _ in split(normalise(caption))}
        # The trainer numbers letters in hash order, which differs between runs, and breaks ties by number. Declaring
        # them beforehand fixes their numbers.
        inner = sorted({f"##{letter}" for word in words for letter in word[1:]})
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size, min_frequency=1, show_progress=False, special_tokens=[*SPECIALS, *inner]
        )
        untrained.train_from_iterator(captions, trainer)
        return cls(_wordpiece(untrained.get_vocab(with_added_tokens=True), cls.lower_case))

    @classmethod
    def load(cls, file: Path) -> Tokenizer:
        """The tokenizer of a `tokenizer.json`. Raises `UserError` if it is missing or does not suit."""
        try:
            text = file.read_text("utf-8")
        except FileNotFoundError:
            raise UserError(f"{file}: no such file; a model directory needs its tokenizer.json.") from None
        except UnicodeDecodeError as error:
            raise UserError(f"{file}: not UTF-8 text ({error.reason}); save the model again.") from None
        try:
            wordpiece = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises nothing more specific
            raise UserError(f"{file}: not a tokenizer.json ({error}); save the model again.") from None
        missing = [token for token in SPECIALS if wordpiece.token_to_id(token) is None]
        if missing:
            raise UserError(f"{file}: the vocabulary lacks {', '.join(missing)}; use a BERT-like tokenizer.")
        return cls(wordpiece)

    def save(self, file: Path, config: ModelConfig) -> None:
        """Writes the tokenizer as `tokenizer.json`, which other libraries read too.

        The file also says whether the model's texts end in [SEP]. Here `encode` is told.
        """
        copy = tokenizers.Tokenizer.from_str(self._wordpiece.to_str())
        copy.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{CLS} $A {SEP}" if config.append_sep else f"{CLS} $A",
            special_tokens=[(CLS, self.cls_id), (SEP, self.sep_id)],
        )
        write_whole(file, copy.to_str(pretty=True))

    def encode(self, text: str, max_tokens: int, append_sep: bool) -> np.ndarray:
        """Ids, int64 [l], of `[CLS] tokens` or `[CLS] tokens [SEP]`, cut so that l ≤ `max_tokens`."""
        readable = text.encode("utf-8", "replace").decode("utf-8")  # bytes of a file name that are not UTF-8
        tokens = self._wordpiece.encode(readable, add_special_tokens=False).ids
        end = [self.sep_id] if append_sep else []
        return np.array([self.cls_id, *tokens[: max_tokens - 1 - len(end)], *end], dtype=np.int64)

    def words(self, text: str, max_tokens: int, append_sep: bool) -> list[tuple[str, list[int]]]:
        """The words of the text as written, each with the positions of its tokens in the result of `encode`."""
        encoded = self._wordpiece.encode(text, add_special_tokens=False)
        found: dict[int | None, tuple[int, list[int]]] = {}
        kept = encoded.word_ids[: max_tokens - 1 - append_sep]
        for place, (word, (start, _)) in enumerate(zip(kept, encoded.offsets, strict=False)):
            found.setdefault(word, (start, []))[1].append(place + 1)  # after [CLS]
        return [
            (text[start : encoded.offsets[places[-1] - 1][1]], places) for start, places in found.values()
        ]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of the ids, without special tokens."""
        return self._wordpiece.decode([int(number) for number in ids], skip_special_tokens=True)

    def pieces(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The token of each id, special tokens included."""
        return [self._wordpiece.id_to_token(int(number)) or UNK for number in ids]


def _from_json(kind: type[Tokenizer], text: str) -> Tokenizer:
    return kind(tokenizers.Tokenizer.from_str(text))


def _wordpiece(vocab: dict[str, int], lower_case: bool) -> tokenizers.Tokenizer:
    """BERT's tokenizer for a vocabulary. In lower case, words also lose their accents."""
    wordpiece = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=UNK, max_input_chars_per_word=100))
    wordpiece.normalizer = normalizers.BertNormalizer(lowercase=lower_case)
    wordpiece.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    wordpiece.decoder = decoders.WordPiece()
    if CLS in vocab:
        wordpiece.add_special_tokens(list(SPECIALS))
    return wordpiece


def mask_tokens(
    ids: np.ndarray,
    probability: float,
    tokenizer: Tokenizer,
    rng: np.random.Generator,
    content_only: bool = False,
    first_id: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """A masked copy of the ids, int64 [l], and a mask of the tokens to predict, bool [l].

    Every token is chosen with `probability`, except [CLS], [SEP] and padding. Of the chosen tokens, 80 % become [MASK],
    10 % a random token of `first_id` or above, and 10 % stay, as in BERT. With `content_only`, filler words are never
    chosen, and at least one other token is (Bitton et al., 2021).
    """
    draws = rng.random((3, len(ids)))
    words = (ids != tokenizer.cls_id) & (ids != tokenizer.sep_id) & (ids != tokenizer.pad_id)
    if content_only:
        words &= ~np.isin(ids, tokenizer.filler_ids)
        lowest = np.min(draws[0], initial=1.0, where=words)
        chosen = (draws[0] <= max(probability, lowest)) & words
    else:
        chosen = (draws[0] < probability) & words
    random_pieces = first_id + (draws[2] * (tokenizer.vocab_size - first_id)).astype(np.int64)
    replaced = np.where(draws[1] < 0.8, tokenizer.mask_id, np.where(draws[1] < 0.9, random_pieces, ids))
    return np.where(chosen, replaced, ids), chosen
