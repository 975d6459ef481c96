"""Pickles of plain values, read so that they cannot run anything."""

from __future__ import annotations

import pickle
from pathlib import Path

from albef.config import UserError
from albef.manifest import plain


class Forbidden(Exception):
    """A pickle asked for something else than lists, dictionaries, texts and numbers."""


class PlainUnpickler(pickle.Unpickler):
    """Knows no class and no function, so that a pickle can neither make an object nor call anything."""

    def find_class(self, module: str, name: str) -> object:
        """Refuses."""
        raise Forbidden(f"{module}.{name}")


def read_plain_pickle(path: Path) -> object:
    """What the file holds: lists, dictionaries, texts and numbers, nothing else; written by Python 2 or 3.

    Raises `UserError`, before anything is run, for a file that asks for more, and for one that is no pickle.
    """
    try:
        with path.open("rb") as file:
            return PlainUnpickler(file, encoding="latin1").load()
    except Forbidden as error:
        raise UserError(
            f"{path}: asks for {error}, but may hold only lists, dictionaries, texts and numbers; nothing of it was "
            f"run. Take the file from the official download."
        ) from None
    except Exception as error:  # whatever broken content may raise
        raise UserError(f"{path}: not a readable pickle ({plain(error)}); download it again.") from None
