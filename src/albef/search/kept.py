"""How a second model encodes indexed images, kept in a folder of the index, so that it encodes each image once.

`IDX/reranking/MODEL/IMAGE` holds one image: a hash, its feature as float32, its tokens as float16. MODEL is a hash of
the model's weights, precision and configuration. IMAGE is a hash of the image's path, size and last change, so an
image that changed has another name. The hash in the file is that of both names and of all that follows it. A file that
does not match is damaged or stems from elsewhere, and is made anew.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import xxhash

from albef.config import UserError
from albef.data.images import BadImage
from albef.disk import check_room, told
from albef.engine import Engine
from albef.search.index import RERANKING_FOLDER, blank_encoding
from albef.writing import write_whole

FORMAT_VERSION = 1
HASH_BYTES = 16
_writing = threading.Lock()  # locks of files keep only processes apart


class Kept(NamedTuple):
    """An encoded image, in the precision in which it is kept."""

    feature: np.ndarray  # float32 [F], unit length
    tokens: np.ndarray  # float16 [places, width]


class KeptEncodings:
    """The encodings of images by one model that are kept in an index's folder."""

    def __init__(self, index: Path, engine: Engine) -> None:
        blank = blank_encoding(engine)
        self.engine = engine
        self.feature_width, self.shape = blank.feature.shape[1], blank.tokens.shape[1:]
        self.bytes_each = HASH_BYTES + 4 * self.feature_width + 2 * self.shape.numel()
        model = f"{FORMAT_VERSION} {engine.fingerprint} {engine.bf16} {dataclasses.asdict(engine.config)}"
        self.folder = index / RERANKING_FOLDER / xxhash.xxh3_128_hexdigest(model.encode())
        self.why_not = ""  # the first reason why an encoding could not be kept

    def file_of(self, image: Path) -> Path | None:
        """The file for an image as it is now. None if there is no such image."""
        try:
            found = os.stat(image)
        except (OSError, ValueError):  # ValueError: no path can have these characters
            return None
        name = b"%d %d %b" % (found.st_size, found.st_mtime_ns, os.fsencode(image))
        return self.folder / xxhash.xxh3_128_hexdigest(name)

    def holds(self, file: Path) -> bool:
        """Whether this file is there and has the right size. A link is not followed."""
        try:
            found = file.lstat()
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and found.st_size == self.bytes_each

    def check_room(self, images: int) -> None:
        """Keeps nothing if the disk has no room for that many images."""
        try:
            check_room(self.folder, images * self.bytes_each)
        except UserError as error:
            self.why_not = str(error)

    def encodings(self, images: Sequence[Path]) -> list[Kept | BadImage]:
        """The encodings of some images: those that are kept are read, all others are made in one pass and kept.

        For an image that cannot be read, the reason.
        """
        files = [self.file_of(image) for image in images]
        found: list[Kept | BadImage | None] = [None if file is None else self.read(file) for file in files]
        new = [number for number, one in enumerate(found) if one is None]
        bad: dict[int, BadImage] = {}
        made: list[Kept] = []
        chosen = [images[number] for number in new]
        for encoding in self.engine.image_encodings(chosen, max(1, len(chosen)), bad):
            features = encoding.feature.float().cpu().numpy()
            made += map(Kept, features, encoding.tokens.to(torch.float16).cpu().numpy())
        readable = [number for place, number in enumerate(new) if place not in bad]
        for number, one in zip(readable, made, strict=True):
            found[number] = one
            self.write(files[number], one)
        for place, error in bad.items():
            found[new[place]] = error
        return [one for one in found if one is not None]

    def read(self, file: Path) -> Kept | None:
        """The encoding in a file. None if there is none, or if it is damaged."""
        if not self.holds(file):
            return None
        try:
            with file.open("rb") as handle:
                data = handle.read(self.bytes_each + 1)  # it may grow meanwhile
        except OSError:
            return None
        if len(data) != self.bytes_each or data[:HASH_BYTES] != self.hash_of(file, data[HASH_BYTES:]):
            return None
        feature = np.frombuffer(data, "<f4", self.feature_width, HASH_BYTES)
        tokens = np.frombuffer(data, "<f2", offset=HASH_BYTES + feature.nbytes)
        return Kept(feature, tokens.reshape(self.shape))

    def write(self, file: Path | None, one: Kept) -> None:
        """Keeps an encoding, whole or not at all. Notes the first failure, and tries no more after it."""
        if file is None or self.why_not:
            return
        content = one.feature.astype("<f4").tobytes() + one.tokens.astype("<f2").tobytes()
        try:
            with _writing, told(file, file):
                self.folder.parent.mkdir(exist_ok=True)  # not the index: it may have been removed meanwhile
                if file.is_symlink():  # it could lead anywhere
                    file.unlink()
                write_whole(file, self.hash_of(file, content) + content)
        except UserError as error:
            self.why_not = str(error)

    def hash_of(self, file: Path, content: bytes) -> bytes:
        """The hash that a file with this content begins with."""
        return xxhash.xxh3_128_digest(f"{self.folder.name}/{file.name}/".encode() + content)
