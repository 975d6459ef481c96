"""Reads pickles of plain values without letting them run anything."""

from __future__ import annotations

import pickle
from pathlib import Path

from albef.config import UserError
from albef.manifest import plain


class Forbidden(Exception):
    """A pickle needs something else than lists, dictionaries, texts and numbers."""


class PlainUnpickler(pickle.Unpickler):
    """An unpickler without classes and functions, so that a pickle cannot create objects or call anything."""

    def find_class(self, module: str, name: str) -> object:
        """Always refuses."""
        raise Forbidden(f"{module}.{name}")


def read_plain_pickle(path: Path) -> object:
    """The content of a pickle by Python 2 or 3: lists, dictionaries, texts and numbers, nothing else.

    Raises `UserError`, before anything is run, for a pickle that needs more, and for a file that is not a pickle.
    """
    try:
        with path.open("rb") as file:
            return PlainUnpickler(file, encoding="latin1").load()
    except Forbidden as error:
        raise UserError(
            f"{path}: needs {error}, but may only hold lists, dictionaries, texts and numbers. Nothing of it was "
            f"run. Take the file from the official download."
        ) from None
    except Exception as error:  # broken content may raise anything
        raise UserError(f"{path}: not a readable pickle ({plain(error)}); download it again.") from None
