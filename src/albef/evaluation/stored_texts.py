"""Texts as far as matching takes them before it sees an image: in a file, or on a GPU that has room for them."""

from __future__ import annotations

import abc
import contextlib
import os
from collections.abc import Iterator, Sequence
from io import FileIO
from pathlib import Path
from tempfile import TemporaryFile, gettempdir

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from albef.disk import told
from albef.engine import Engine
from albef.writing import write_all

SHARE = 0.25  # of a GPU's free memory that texts may fill; twice that while they are put together

States = Float[Tensor, "texts length width"]
Mask = Bool[Tensor, "texts length"]


@contextlib.contextmanager
def stored_texts(engine: Engine, texts: Sequence[str]) -> Iterator[StoredTexts]:
    """The texts, ready to be matched with any image, while the block runs."""
    if fits(engine, len(texts)):
        yield TextsOnDevice(engine, texts)
        return
    with TemporaryFile(buffering=0) as file:
        yield TextsInFile(engine, texts, file)


def fits(engine: Engine, count: int) -> bool:
    """Whether so many texts of the greatest length may stay on the engine's GPU; on a CPU they never do."""
    if engine.device.type != "cuda":
        return False
    most = count * engine.config.max_tokens * engine.config.text_width * (2 if engine.bf16 else 4)
    return most < SHARE * torch.cuda.mem_get_info(engine.device)[0]


class StoredTexts(abc.ABC):
    """States of the tokens of texts, one text after the other."""

    def __init__(self, engine: Engine, texts: Sequence[str]) -> None:
        self.engine, lengths = engine, []
        for encoding in engine.text_encodings(texts):
            assert encoding.mask is not None
            with engine.computing():
                begun = engine.model.begin_match(encoding.tokens, encoding.mask)
            states = begun[encoding.mask]
            self.keep(states.bfloat16() if engine.bf16 else states)
            lengths.append(encoding.mask.sum(1).cpu().numpy())
        self.lengths = np.concatenate(lengths)
        self.starts = self.lengths.cumsum() - self.lengths

    @abc.abstractmethod
    def keep(self, states: Float[Tensor, "tokens width"]) -> None:
        """Takes in the tokens of the next texts."""

    @abc.abstractmethod
    def read(self, rows: Int[np.ndarray, " texts"]) -> tuple[States, Mask]:
        """Padded states of these texts, and which are real; on the engine's device."""


class TextsOnDevice(StoredTexts):
    """The states on the engine's device, read in one operation."""

    def __init__(self, engine: Engine, texts: Sequence[str]) -> None:
        self.parts: list[Tensor] = []
        super().__init__(engine, texts)
        self.tokens = torch.cat(self.parts)
        del self.parts

    def keep(self, states: Float[Tensor, "tokens width"]) -> None:
        """Takes in the tokens of the next texts."""
        self.parts.append(states)

    def read(self, rows: Int[np.ndarray, " texts"]) -> tuple[States, Mask]:
        """Padded states of these texts, and which are real; padding holds tokens of other texts."""
        column = np.arange(int(self.lengths[rows].max()))
        places = np.minimum(self.starts[rows, None] + column, len(self.tokens) - 1)
        mask = column < self.lengths[rows, None]
        return self.tokens[self.engine.here(torch.from_numpy(places))], self.engine.here(
            torch.from_numpy(mask)
        )


class TextsInFile(StoredTexts):
    """The states in a file: those of 25,000 captions would fill a gigabyte of memory."""

    def __init__(self, engine: Engine, texts: Sequence[str], file: FileIO) -> None:
        self.file = file
        super().__init__(engine, texts)

    def keep(self, states: Float[Tensor, "tokens width"]) -> None:
        """Takes in the tokens of the next texts."""
        self.width, self.dtype = states.shape[1], states.dtype
        with told(f"{gettempdir()}, where temporary files are (see TMPDIR)", Path(gettempdir())):
            write_all(self.file, as_bytes(states.cpu()).reshape(-1).data)

    def read(self, rows: Int[np.ndarray, " texts"]) -> tuple[States, Mask]:
        """Padded states of these texts, and which are real; zeros where there is no token."""
        lengths = torch.from_numpy(self.lengths[rows])
        states = torch.zeros(len(rows), int(lengths.max()), self.width, dtype=self.dtype)
        token_bytes = self.width * states.element_size()
        for row, into in zip(rows, as_bytes(states), strict=True):
            wanted = into.reshape(-1)[: self.lengths[row] * token_bytes]
            read = os.preadv(self.file.fileno(), [wanted.data], int(self.starts[row]) * token_bytes)
            assert read == len(wanted)
        mask = torch.arange(states.shape[1]) < lengths[:, None]
        return self.engine.here(states), self.engine.here(mask)


def as_bytes(tensor: Tensor) -> np.ndarray:
    """The same memory as bytes, which NumPy has for every precision."""
    return tensor.contiguous().view(torch.uint8).numpy()
