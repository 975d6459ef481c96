"""Captions to token ids as CLIP has them: the published cleaning, and byte pairs."""

from __future__ import annotations

import gzip
import html
import json
import re
import sys
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Bool
from tokenizers import Regex, models, normalizers, pre_tokenizers, processors, trainers

from albef.config import DataConfig, ModelConfig, UserError
from albef.data.words import Ids
from albef.manifest import plain
from albef.writing import write_whole

SPECIALS = ("<|startoftext|>", "<|endoftext|>")
OPEN_CLIP_SPECIALS = ("<start_of_text>", "<end_of_text>")  # open_clip's spelling of the same two ids
END_OF_WORD = "</w>"
# Byte pairs are joined within these: an English ending, a run of letters, one digit, a run of anything but spaces.
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
_SPACES = re.compile(r"\s+")


def clean_text(text: str) -> str:
    """The text in lower case and single-spaced, its broken characters and HTML entities mended, as published.

    Raises `UserError` without the package ftfy, if the text is of a kind that it might change.
    """
    if text.isascii() and text.isprintable() and "&" not in text:  # neither broken nor escaped
        return _SPACES.sub(" ", text).strip().lower()
    try:
        import ftfy  # of an extra
    except ImportError:
        raise UserError(
            "CLIP's published cleaning of texts needs the package ftfy. Install it: pip install 'albef[clip]'."
        ) from None
    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _SPACES.sub(" ", text).strip().lower()


class ClipWords:
    """CLIP's words: `start tokens end`. A text that is too long keeps its end token."""

    def __init__(self, tokenizer: ClipTokenizer, config: ModelConfig) -> None:
        self.tokenizer, self.config = tokenizer, config

    def clean(self, text: str) -> str:
        """As `clean_text`."""
        return clean_text(text)

    def clean_question(self, text: str) -> str:
        """As any text: the system has no cleaning of its own for questions."""
        return clean_text(text)

    def encode(self, cleaned: str) -> Ids:
        """Ids of at most `max_tokens` tokens."""
        return self.tokenizer.encode(cleaned, self.config.max_tokens).ids

    def are_empty(self, ids: Ids) -> bool:
        """Whether there are start and end alone."""
        return len(ids) <= 2

    def encode_answer(self, answer: str) -> Ids:
        """As any text."""
        return self.encode(answer)

    def encode_tags(self, tags: Sequence[str] | None) -> Ids:
        """As any text: the system reads no tags."""
        return self.encode(" ".join(tags or ()))

    def content(self, cleaned: str) -> Ids:
        """Ids of all tokens, without start and end."""
        return self.tokenizer.encode(cleaned, sys.maxsize).ids[1:-1]

    def num_cut(self, cleaned: str) -> int:
        """How many tokens are beyond `max_tokens`."""
        return self.tokenizer.encode(cleaned, self.config.max_tokens).num_cut

    def are_known(self, content: Ids) -> bool:
        """Always: every letter consists of bytes that the vocabulary has."""
        return True

    def mask(
        self, ids: Ids, data: DataConfig, rng: np.random.Generator
    ) -> tuple[Ids, Bool[np.ndarray, " length"]]:
        """The ids as they are: the system learns nothing from masked words."""
        return ids, np.zeros(len(ids), dtype=bool)


class Encoded(NamedTuple):
    """The ids of a text, and how many of its tokens were cut off."""

    ids: np.ndarray  # int64 [length]: start, tokens, end
    num_cut: int


class ClipTokenizer:
    """Byte pairs: each text has ids, whatever its alphabet. The end token has the highest id.

    `encode` takes cleaned texts. Special tokens come from the code alone: "<|endoftext|>" in a text is taken apart
    like any other word. With `spelled`, a text that spells one of these two gets its id, as published.
    """

    pad_id = 0  # stands behind the end token, where nothing is read

    def __init__(self, merges: Sequence[tuple[str, str]], spelled: tuple[str, str] | None = None) -> None:
        self.merges, self.spelled = tuple(merges), spelled
        self._pieces = vocabulary(merges)
        self.vocab_size = len(self._pieces)  # each id is below it
        self.start_id, self.end_id = self.vocab_size - 2, self.vocab_size - 1
        self._bpe = pipeline(self._pieces, merges, spelled or ())

    def __reduce__(self) -> tuple[object, ...]:
        return ClipTokenizer, (self.merges, self.spelled)

    @classmethod
    def published(cls, spelled: tuple[str, str] | None = None) -> ClipTokenizer:
        """The vocabulary of all published models, 49,408 pieces."""
        packed = (resources.files("albef.peers") / "clip_merges.txt.gz").read_bytes()
        return cls([pair(line) for line in gzip.decompress(packed).decode("utf-8").splitlines()], spelled)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int) -> ClipTokenizer:
        """A vocabulary of at most `vocab_size` pieces made for these cleaned texts. The same for the same texts."""
        smallest = len(vocabulary([]))
        if vocab_size < smallest:
            raise UserError(
                f"a vocabulary of byte pairs has at least {smallest} pieces, not {vocab_size}: the 256 bytes twice, "
                f"start and end."
            )
        *symbols, _, _ = vocabulary([])
        untrained = pipeline(vocabulary([]), [], ())
        # The trainer would number symbols in the order of a hash table. Declared beforehand, they have their places.
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size - 2,
            min_frequency=1,
            show_progress=False,
            special_tokens=symbols,
            end_of_word_suffix=END_OF_WORD,
        )
        untrained.train_from_iterator(texts, trainer)
        return cls(merges_of(untrained))

    @classmethod
    def load(cls, file: Path, spelled: tuple[str, str] | None = None) -> ClipTokenizer:
        """The tokenizer of a `tokenizer.json`. Raises `UserError` for a missing file and for other tokenizers."""
        try:
            found = tokenizers.Tokenizer.from_str(file.read_text("utf-8"))
            own = cls(merges_of(found), spelled)
        except FileNotFoundError:
            raise UserError(f"{file}: no such file; a model directory needs its tokenizer.json.") from None
        except Exception as error:  # the library raises nothing more specific
            raise UserError(f"{file}: not a tokenizer.json of byte pairs ({plain(error)}).") from None
        ids = found.get_vocab(with_added_tokens=True)
        if sorted(ids, key=ids.__getitem__) != own._pieces:
            raise UserError(
                f"{file}: its {len(ids):,} pieces are not in CLIP's order (bytes, bytes at the end of a word, pairs, "
                f"start, end); give the tokenizer.json of a CLIP model."
            )
        return own

    def save(self, file: Path, config: ModelConfig) -> None:
        """Writes a `tokenizer.json` that other libraries read too, whatever the model's configuration.

        They clean texts without ftfy and HTML entities, which the format cannot express.
        """
        copy = tokenizers.Tokenizer.from_str(self._bpe.to_str())
        copy.normalizer = normalizers.Sequence(
            [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
        )
        copy.post_processor = processors.TemplateProcessing(
            single=f"{SPECIALS[0]} $A {SPECIALS[1]}",
            special_tokens=list(zip(SPECIALS, (self.start_id, self.end_id), strict=True)),
        )
        write_whole(file, copy.to_str(pretty=True))

    def encode(self, text: str, max_tokens: int) -> Encoded:
        """The ids of a cleaned text, cut so that there are at most `max_tokens` with start and end."""
        text = text.encode("utf-8", "replace").decode("utf-8")  # odd bytes of a file name are no letters
        tokens: list[int] = []
        begin = 0
        for start, end, number in self._specials(text):
            tokens += [*self._bpe.encode(text[begin:start]).ids, number]
            begin = end
        tokens += self._bpe.encode(text[begin:]).ids
        kept = tokens[: max_tokens - 2]
        ids = np.array([self.start_id, *kept, self.end_id], dtype=np.int64)
        return Encoded(ids, len(tokens) - len(kept))

    def _specials(self, text: str) -> list[tuple[int, int, int]]:
        """Where the text spells a special token that counts, and the token's id."""
        if self.spelled is None:
            return []
        numbers = dict(zip(self.spelled, (self.start_id, self.end_id), strict=True))
        split = pieces_of(self.spelled).pre_tokenize_str(text)
        return [(*place, numbers[piece.lower()]) for piece, place in split if piece.lower() in numbers]

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of the ids, special tokens left out."""
        pieces = [self._pieces[number] for number in ids if number < self.start_id]
        joined = "".join(f"{p.removesuffix(END_OF_WORD)} " if p.endswith(END_OF_WORD) else p for p in pieces)
        bytes_of = {symbol: bytes([number]) for number, symbol in byte_symbols().items()} | {" ": b" "}
        return b"".join(bytes_of[symbol] for symbol in joined).decode("utf-8", "replace").strip()


def pair(line: str) -> tuple[str, str]:
    """The two pieces of a line."""
    left, right = line.split(" ")
    return left, right


def byte_symbols() -> dict[int, str]:
    """A printable character for each byte, in the vocabulary's order: first the bytes that are printable themselves."""
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + n) for n, byte in enumerate(others)}


def vocabulary(merges: Sequence[tuple[str, str]]) -> list[str]:
    """All pieces by id: bytes, bytes at the end of a word, joined pairs, start, end."""
    symbols = list(byte_symbols().values())
    ends = [symbol + END_OF_WORD for symbol in symbols]
    return symbols + ends + [left + right for left, right in merges] + list(SPECIALS)


def pieces_of(specials: Sequence[str]) -> pre_tokenizers.PreTokenizer:
    """Splits a text into the pieces within which byte pairs are joined."""
    pattern = "|".join([*map(re.escape, specials), PIECES])
    return pre_tokenizers.Split(Regex(f"(?i:{pattern})"), behavior="removed", invert=True)


def pipeline(
    pieces: Sequence[str], merges: Sequence[tuple[str, str]], specials: Sequence[str]
) -> tokenizers.Tokenizer:
    """The steps from a cleaned text to ids, without start and end."""
    ids = {piece: number for number, piece in enumerate(pieces)}
    bpe = tokenizers.Tokenizer(models.BPE(ids, list(merges), end_of_word_suffix=END_OF_WORD))
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([pieces_of(specials), to_bytes])
    return bpe


def merges_of(bpe: tokenizers.Tokenizer) -> list[tuple[str, str]]:
    """The pairs that a tokenizer joins, the first ones first."""
    merges = json.loads(bpe.to_str())["model"]["merges"]
    return [pair(merge) if isinstance(merge, str) else (merge[0], merge[1]) for merge in merges]
