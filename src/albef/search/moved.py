"""Indexed images that have moved: the user says where they are now."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from albef.config import UserError
from albef.search.index import Index


class Move(NamedTuple):
    """A folder or file that has moved."""

    old: Path
    new: Path


def read_moves(given: Sequence[str], index: Index) -> list[Move]:
    """The moves that texts "OLD=NEW" name. Both paths may be relative to the current folder.

    Raises `UserError` for a text of another form, if no image of the index was at OLD, and if nothing is at NEW.
    """
    return [read_move(text, index) for text in given]


def read_move(text: str, index: Index) -> Move:
    """The move of "OLD=NEW". If names contain equals signs, OLD is the shortest place that images were in."""
    places = [place for place, letter in enumerate(text) if letter == "=" and 0 < place < len(text) - 1]
    if not places:
        raise UserError(
            f"--moved {text}: write it as OLD=NEW: where the images were, and where they are now."
        )
    moves = [Move(whole(text[:place]), whole(text[place + 1 :])) for place in places]
    for move in moves:
        inside = f"{move.old}{os.sep}".replace(os.sep * 2, os.sep)
        if any(path == move.old or str(path).startswith(inside) for path in index.paths):
            if not os.path.exists(move.new):
                raise UserError(
                    f"--moved {text}: {move.new}: no such file or folder. Name the place where they are now."
                )
            return move
    parents = {str(path.parent) for path in index.paths}
    raise UserError(
        f"--moved {text}: {moves[0].old}: no image of the index was there. They were below "
        f"{os.path.commonpath(parents)}."
    )


def whole(text: str) -> Path:
    """The path as an index stores it: absolute and normalised."""
    return Path(os.path.abspath(Path(text).expanduser()))


def moved(path: Path, moves: Sequence[Move]) -> Path:
    """Where an image is now, by the first move that applies to it."""
    for old, new in moves:
        if path == old or old in path.parents:
            return new / path.relative_to(old)
    return path
