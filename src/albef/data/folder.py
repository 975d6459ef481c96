"""Records from a folder of images with text files beside them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from albef.config import UserError
from albef.data.files import found_below, summary
from albef.data.records import LeftOut, Record


class FolderSource:
    """The images in and below a folder. Each line of the .txt beside an image is a caption."""

    couple = 1

    def __init__(self, folder: Path) -> None:
        images, texts, left_out = found_below(folder)
        self.left_out: Sequence[LeftOut] = left_out
        note = summary(left_out)
        self.notes: Sequence[str] = [f"{folder}: {note[0].lower()}{note[1:]}"] if note else []
        text_of = {text[: -len(".txt")]: text for text in texts}  # .txt after .TXT
        beside = [text_of.get(os.path.splitext(name)[0], text_of.get(name)) for name in images]
        if not any(beside):
            raise UserError(
                f"{folder}: none of its {len(images)} images has a .txt beside it; "
                f"write the captions of cat.jpg into cat.txt, one a line.{' ' + note if note else ''}"
            )
        self._folder = folder
        # File names are bytes and not always UTF-8.
        self._images, self._texts = (
            pa.array([name if name is None else os.fsencode(name) for name in names], pa.large_binary())
            for names in (images, beside)
        )

    def __len__(self) -> int:
        return len(self._images)

    def record(self, index: int, epoch: int) -> Record:
        """Image `index` in the order of names. It has no captions if its .txt cannot be read."""
        name, text = os.fsdecode(self._images[index].as_py()), self._texts[index].as_py()
        try:
            beside = None if text is None else self._folder / os.fsdecode(text)
            lines = beside.read_text("utf-8-sig", errors="replace").splitlines() if beside else []
        except OSError:  # deleted or not readable: a bad sample, but the run goes on
            lines = []
        return Record(
            image=self._folder / name,
            captions=tuple(line for line in lines if line.strip()),
            image_id=None,
            caption_ids=None,
            origin=name,
        )
