"""Turns users' images and texts into a model's inputs. Runs on the CPU, safe on any thread."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from albef.config import ModelConfig, UserError
from albef.data.collate import padded
from albef.data.images import BadImage, ImageInput
from albef.data.text import MASK
from albef.data.words import BertWords, Words
from albef.engine.sight import Sight
from albef.errors import Caution

T = TypeVar("T")
Made = TypeVar("Made")
MADE_AHEAD = 128  # images that are decoded before they are asked for, where several threads do that


class Preparing:
    """Images and texts as a model with this configuration takes them."""

    def __init__(self, config: ModelConfig, words: Words, sight: Sight) -> None:
        self.config, self.words, self.sight = config, words, sight

    def visual_batches(
        self,
        images: Sequence[ImageInput],
        batch_size: int,
        bad: dict[int, BadImage] | None = None,
        threads: int = 1,
    ) -> Iterator[Any]:
        """What is seen of the images in their order, batch by batch.

        With `bad`, images that cannot be read are left out and noted there under their number; without, the first one
        raises. `threads` decode.
        """

        def read_or_why(image: ImageInput) -> Any | BadImage:
            try:
                return self.sight.read(image)
            except BadImage as error:
                return error

        made = enumerate(made_ahead(read_or_why, (images[n] for n in range(len(images))), threads))
        while some := list(islice(made, batch_size)):
            rows = []
            for number, read in some:
                if not isinstance(read, BadImage):
                    rows.append(read)
                elif bad is None:
                    raise read
                else:
                    bad[number] = read
            if rows:
                yield self.sight.batch(rows)

    def cleaned(self, text: str) -> str:
        """A text as the model reads it. A text that says nothing becomes empty."""
        return self.words.clean(text)

    def text_tokens(
        self, texts: Sequence[str]
    ) -> tuple[Int[Tensor, "texts length"], Bool[Tensor, "texts length"]]:
        """Ids of the cleaned texts, padded to the longest, and a mask of the real ones."""
        return self._padded([self.words.encode(self.words.clean(text)) for text in texts])

    def question_tokens(
        self, questions: Sequence[str]
    ) -> tuple[Int[Tensor, "questions length"], Bool[Tensor, "questions length"]]:
        """As `text_tokens`, with the cleaning of questions."""
        return self._padded([self.words.encode(self.words.clean_question(one)) for one in questions])

    def word_places(self, text: str) -> list[tuple[str, list[int]]]:
        """The words of the cleaned text, each with the positions of its tokens in the result of `text_tokens`."""
        return self._bert.places(self._bert.clean(text))

    @property
    def _bert(self) -> BertWords:
        """The words of a system that reads as BERT does."""
        assert isinstance(self.words, BertWords)
        return self.words

    def answer_tokens(
        self, answers: Sequence[str]
    ) -> tuple[Int[Tensor, "answers length"], Bool[Tensor, "answers length"]]:
        """Ids of answers without cleaning, padded to the longest, and a mask of the real ones."""
        return self._padded([self.words.encode_answer(answer) for answer in answers])

    def _padded(
        self, rows: Sequence[np.ndarray]
    ) -> tuple[Int[Tensor, "texts length"], Bool[Tensor, "texts length"]]:
        ids, mask = padded(rows, self.words.tokenizer.pad_id)
        return torch.from_numpy(ids), torch.from_numpy(mask)

    def masked_tokens(self, text: str) -> tuple[Int[Tensor, "1 length"], Int[Tensor, " masks"]]:
        """Ids of a text in which every "[MASK]" is the mask token, and the positions of these tokens.

        No other word is special. Raises `UserError` for a text without "[MASK]", and for one that is too long.
        """
        check_is_text(text, "text")
        config, words, tokenizer = self.config, self._bert, self._bert.tokenizer
        ids = [tokenizer.cls_id]
        for number, part in enumerate(text.split(MASK)):
            ids += [tokenizer.mask_id] if number else []
            ids += words.content(words.clean(part)).tolist()
        ids += [tokenizer.sep_id] if config.append_sep else []
        places = [place for place, number in enumerate(ids) if number == tokenizer.mask_id]
        if not places:
            raise UserError(f'"{text}" has no {MASK}. Write {MASK} where a word is missing.')
        if len(ids) > config.max_tokens:
            raise UserError(
                f"The text has {len(ids)} tokens, but the limit is {config.max_tokens}. Shorten it."
            )
        return torch.tensor([ids]), torch.tensor(places)

    def check_says_something(self, text: str, what: str) -> None:
        """Raises `UserError` for anything but a string, and for a text without a word that the model knows."""
        check_is_text(text, what)
        content = self.words.content(self.words.clean(text))
        if not len(content):
            raise UserError(f"The {what} is empty: {text!r} has no words.")
        if not self.words.are_known(content):
            raise UserError(
                f"The {what} {text!r} means nothing to the model, since it knows none of the words."
            )
        self.warn_of_cut([text])

    def warn_of_cut(self, texts: Sequence[str]) -> None:
        """Warns about texts that are longer than the model reads."""
        cut = [text for text in texts if self.words.num_cut(self.cleaned(text))]
        if cut:
            warnings.warn(
                f"{len(cut)} of {len(texts)} texts are longer than the {self.config.max_tokens} tokens that this model "
                f"reads, such as {cut[0][:40]!r}: only the beginning counts.",
                Caution,
                stacklevel=4,
            )


def made_ahead(make: Callable[[T], Made], given: Iterable[T], threads: int) -> Iterator[Made]:
    """What `make` makes of each thing, in their order; several threads are up to `MADE_AHEAD` things in front.

    The things themselves are taken on the thread that asks. With one thread nothing is made before it is asked for.
    """
    if threads < 2:
        yield from map(make, given)
        return
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for thing in given:
                waiting.append(pool.submit(make, thing))
                if len(waiting) > MADE_AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:  # nobody may ask for the rest
            for future in waiting:
                future.cancel()


def things(given: Iterable[T] | np.ndarray, what: str) -> Sequence[T]:
    """The given things as a sequence. Raises `UserError` for a single thing instead of a list.

    Otherwise a string would be taken as a list of letters, and an image as a list of rows.
    """
    single = isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable)
    if isinstance(given, np.ndarray):
        single = given.dtype.kind not in "UO" and given.ndim < 4
    if single:
        raise UserError(f"{what} must be a list, but {shown(given)} was given. Put a single one into a list.")
    return given if isinstance(given, Sequence) else list(given)


def texts_of(given: Iterable[str], what: str) -> Sequence[str]:
    """The given strings. Raises `UserError` for a single string, and for anything else than strings."""
    texts = things(given, what)
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise UserError(f"{what} must be strings, but number {number} is {shown(text)}.")
    return texts


def check_is_text(text: str, what: str) -> None:
    """Raises `UserError` for anything but a string."""
    if not isinstance(text, str):
        raise UserError(f"The {what} must be a string, but {shown(text)} was given.")


def check_count(k: int) -> None:
    """Raises `UserError` if fewer than one result is asked for."""
    if k < 1:
        raise UserError(f"k is {k}, but it must be at least 1: it is the number of results.")


def shown(given: object) -> str:
    """A given value for a message: strings and paths themselves, otherwise the type."""
    if isinstance(given, str | Path):
        return repr(str(given))
    if isinstance(given, np.ndarray):
        return f"an array {list(given.shape)} of {given.dtype}"
    return f"a {type(given).__name__}"
