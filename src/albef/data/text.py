"""Captions to token ids: the published cleaning, a WordPiece tokenizer that text cannot trick, masking."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from albef.config import UserError
from albef.writing import write_whole

PAD, UNK, CLS, SEP, MASK = SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# English words that a caption may have whatever is in its image. Words of place and number are not among them.
FILLERS = (
    "a an the this that these those some and or but as of on in at to for from by with it its is are be was were has "
    "have there here i you we they he she his her their can could will would very picture photo image drawing see seen "
    "look show"
)

_PUNCTUATION = str.maketrans({**dict.fromkeys(",.'!?\"()*#:;~", None), "-": " ", "/": " "})
_SPACES = re.compile(r"\s{2,}")


def clean_caption(text: str, max_words: int) -> str:
    """The caption in lower case, without punctuation, single-spaced, cut to `max_words`; as published."""
    text = text.lower().translate(_PUNCTUATION).replace("<person>", "person")
    text = _SPACES.sub(" ", text).rstrip("\n").strip(" ")
    return " ".join(text.split(" ")[:max_words])


def clean_question(text: str, max_words: int) -> str:
    """The question in lower case and without punctuation, cut to `max_words`; spacing stays, as published."""
    return " ".join(text.lower().translate(_PUNCTUATION).rstrip(" ").split(" ")[:max_words])


class Tokenizer:
    """WordPiece over lower-cased, accent-free words, as BERT's; a sequence is `[CLS] tokens`.

    Special tokens come from the code alone: "[MASK]" in a text is a bracket, a word and a bracket.
    """

    def __init__(self, wordpiece: tokenizers.Tokenizer) -> None:
        wordpiece.no_padding()
        wordpiece.no_truncation()
        wordpiece.encode_special_tokens = True  # a text that spells one is taken apart like any other
        self._wordpiece = wordpiece
        vocab = wordpiece.get_vocab(with_added_tokens=True)
        self.vocab_size = len(vocab)  # special tokens included; every id is below it
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (
            vocab[token] for token in SPECIALS
        )
        self.filler_ids = np.array([vocab[word] for word in FILLERS.split() if word in vocab], dtype=np.int64)

    def __reduce__(self) -> tuple[object, ...]:
        return _from_json, (self._wordpiece.to_str(),)

    @classmethod
    def bert(cls) -> Tokenizer:
        """The bert-base-uncased vocabulary, 30,522 pieces."""
        text = (resources.files("albef.data") / "bert-base-uncased-vocab.txt").read_text("utf-8")
        return cls(_wordpiece({piece: number for number, piece in enumerate(text.split("\n")[:-1])}))

    @classmethod
    def of_vocabulary(cls, file: Path) -> Tokenizer:
        """BERT's pipeline over the pieces of a `vocab.txt`, one a line; raises `UserError` if it lacks special ones."""
        try:
            pieces = file.read_text("utf-8").removesuffix("\n").split("\n")
        except UnicodeDecodeError:
            raise UserError(f"{file}: not UTF-8 text; get it again.") from None
        missing = [token for token in SPECIALS if token not in pieces]
        if missing:
            raise UserError(f"{file}: the vocabulary lacks {', '.join(missing)}; use a BERT-like one.")
        return cls(_wordpiece({piece: number for number, piece in enumerate(pieces)}))

    @classmethod
    def train(cls, captions: Iterable[str], vocab_size: int) -> Tokenizer:
        """A vocabulary of at most `vocab_size` pieces made for these captions; the same for the same ones."""
        untrained = _wordpiece({UNK: 0})
        captions = list(captions)
        normalise, split = untrained.normalizer.normalize_str, untrained.pre_tokenizer.pre_tokenize_str
        words = {word for caption in captions for word, _ in split(normalise(caption))}
        # The trainer numbers inner letters in the order of a hash table, which differs from run to run, and
        # breaks ties by number. Declared beforehand, they have their places.
        inner = sorted({f"##{letter}" for word in words for letter in word[1:]})
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size, min_frequency=1, show_progress=False, special_tokens=[*SPECIALS, *inner]
        )
        untrained.train_from_iterator(captions, trainer)
        return cls(_wordpiece(untrained.get_vocab(with_added_tokens=True)))

    @classmethod
    def load(cls, file: Path) -> Tokenizer:
        """The tokenizer saved in a `tokenizer.json`; raises `UserError` when it is missing or unfit."""
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

    def save(self, file: Path, append_sep: bool = False) -> None:
        """Writes the tokenizer as `tokenizer.json`, which other libraries read too.

        They then close a text as the model's `append_sep` says, which `encode` here is told.
        """
        copy = tokenizers.Tokenizer.from_str(self._wordpiece.to_str())
        copy.post_processor = tokenizers.processors.TemplateProcessing(
            single=f"{CLS} $A {SEP}" if append_sep else f"{CLS} $A",
            special_tokens=[(CLS, self.cls_id), (SEP, self.sep_id)],
        )
        write_whole(file, copy.to_str(pretty=True))

    def encode(self, text: str, max_tokens: int, append_sep: bool) -> np.ndarray:
        """Ids, int64 [l], of `[CLS] tokens` or `[CLS] tokens [SEP]`, tokens cut so that l ≤ `max_tokens`."""
        readable = text.encode("utf-8", "replace").decode(
            "utf-8"
        )  # the odd bytes of a file name are no letters
        tokens = self._wordpiece.encode(readable, add_special_tokens=False).ids
        end = [self.sep_id] if append_sep else []
        return np.array([self.cls_id, *tokens[: max_tokens - 1 - len(end)], *end], dtype=np.int64)

    def words(self, text: str, max_tokens: int, append_sep: bool) -> list[tuple[str, list[int]]]:
        """The words of the text as it spells them, each with the places of its pieces in what `encode` gives."""
        encoded = self._wordpiece.encode(text, add_special_tokens=False)
        found: dict[int | None, tuple[int, list[int]]] = {}
        kept = encoded.word_ids[: max_tokens - 1 - append_sep]
        for place, (word, (start, _)) in enumerate(zip(kept, encoded.offsets, strict=False)):
            found.setdefault(word, (start, []))[1].append(place + 1)  # after [CLS]
        return [
            (text[start : encoded.offsets[places[-1] - 1][1]], places) for start, places in found.values()
        ]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of the ids, special tokens left out."""
        return self._wordpiece.decode([int(number) for number in ids], skip_special_tokens=True)

    def pieces(self, ids: Sequence[int] | np.ndarray) -> list[str]:
        """The piece of each id, special tokens included."""
        return [self._wordpiece.id_to_token(int(number)) or UNK for number in ids]


def _from_json(text: str) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(text))


def _wordpiece(vocab: dict[str, int]) -> tokenizers.Tokenizer:
    """BERT's uncased pipeline over a vocabulary."""
    wordpiece = tokenizers.Tokenizer(models.WordPiece(vocab, unk_token=UNK, max_input_chars_per_word=100))
    wordpiece.normalizer = normalizers.BertNormalizer()
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
) -> tuple[np.ndarray, np.ndarray]:
    """A masked copy of the ids, int64 [l], and where tokens are to be predicted, bool [l].

    Every token is chosen with `probability`, but never [CLS], [SEP] or padding. Of the chosen, 80 % become
    [MASK], 10 % a random piece of the vocabulary, 10 % stay, as in BERT. With `content_only` no filler is chosen, and of
    the others one at least (Bitton et al., 2021).
    """
    draws = rng.random((3, len(ids)))
    words = (ids != tokenizer.cls_id) & (ids != tokenizer.sep_id) & (ids != tokenizer.pad_id)
    if content_only:
        words &= ~np.isin(ids, tokenizer.filler_ids)
        lowest = np.min(draws[0], initial=1.0, where=words)
        chosen = (draws[0] <= max(probability, lowest)) & words
    else:
        chosen = (draws[0] < probability) & words
    random_pieces = (draws[2] * tokenizer.vocab_size).astype(np.int64)
    replaced = np.where(draws[1] < 0.8, tokenizer.mask_id, np.where(draws[1] < 0.9, random_pieces, ids))
    return np.where(chosen, replaced, ids), chosen
