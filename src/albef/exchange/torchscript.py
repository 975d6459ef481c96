"""The tensors of a TorchScript archive, read without running anything in it.

Such an archive is a zip file. `data.pkl` is a pickle of the tree of modules, and each tensor's bytes are an entry of
their own. `torch.jit.load` would compile the program that lies beside them. Here only the tree is read.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from albef.config import UserError
from albef.manifest import plain

MAX_TREE_BYTES = 16_000_000  # of data.pkl; the largest published one has less than 1 MB
MAX_ATTRIBUTES = 100_000  # of all modules together
MAX_DEPTH = 50  # modules within modules
MAX_NAME = 200  # letters of an attribute's name
MAX_DIMENSIONS = 16
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
# All that torch writes. What is not here could fill the memory, or has no use in such a file.
OPCODES = (
    *("PROTO", "STOP", "MARK", "GLOBAL", "NEWOBJ", "BUILD", "REDUCE", "BINPERSID"),
    *("BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
)


class Refused(Exception):
    """What is wrong with an archive, in a sentence without its name."""


class Node:
    """A module of the archive: its attributes, and nothing that could run."""

    __slots__ = ("state",)
    state: object

    def __setstate__(self, state: object) -> None:
        self.state = state


def is_torchscript(file: Path) -> bool:
    """Whether the file is a TorchScript archive, by the names of its entries."""
    try:
        with zipfile.ZipFile(file) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile, NotImplementedError, ValueError):
        return False


def read_torchscript(file: Path) -> dict[str, Tensor]:
    """The parameters and buffers of an archive's modules under the names that a state dict would have.

    Attributes that are tensors but no parameters come too. Nothing in the file is run. Raises `UserError` for a file
    that asks for anything but modules and tensors, is cut off, or claims sizes that it does not have.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return tensors_of(ModuleUnpickler(archive, file.stat().st_size).tree())
    except Refused as error:
        raise UserError(f"{file}: {error}") from None
    except Exception as error:  # whatever broken content may raise
        raise UserError(
            f"{file}: not a readable TorchScript archive ({plain(error)}); compare its size with the original's and "
            f"get it again."
        ) from None


class ModuleUnpickler(pickle.Unpickler):
    """Makes modules without code, tensors, lists and numbers. Each other name is refused."""

    def __init__(self, archive: zipfile.ZipFile, file_bytes: int) -> None:
        trees = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(trees) != 1:
            raise Refused(
                "a TorchScript archive has one data.pkl, this one has another number; get it again."
            )
        self.archive, self.root = archive, trees[0].removesuffix("data.pkl")
        self.unread_bytes = file_bytes  # entries are not packed: together they are no larger than the file
        self.storages: dict[str, Tensor] = {}
        content = self.entry("data.pkl", MAX_TREE_BYTES)
        check_opcodes(content)
        super().__init__(io.BytesIO(content))
        if f"{self.root}byteorder" in archive.namelist() and self.entry("byteorder", 10) != b"little":
            raise Refused(
                "was written by a machine with another order of bytes; save it again on a usual one."
            )

    def tree(self) -> object:
        """The module at the top."""
        return self.load()

    def entry(self, name: str, most_bytes: int) -> bytes:
        """The content of an entry, which is neither packed nor larger than it may be."""
        info = self.archive.getinfo(self.root + name)
        if info.compress_type != zipfile.ZIP_STORED or info.file_size > min(most_bytes, self.unread_bytes):
            raise Refused(
                f"its entry {name[:MAX_NAME]} is larger than it may be, or packed; nothing of it was read."
            )
        self.unread_bytes -= info.file_size
        return self.archive.read(info)

    def find_class(self, module: str, name: str) -> object:
        """A stand-in for each name that such an archive needs; refuses the others."""
        if module == "__torch__" or module.startswith("__torch__."):
            return Node
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) in MAKERS:
            return MAKERS[module, name]
        raise Refused(
            f"asks for {module[:MAX_NAME]}.{name[:MAX_NAME]}, which no archive of a model needs and which could run "
            f"anything. Nothing of it was run; take the file from the official download."
        )

    def persistent_load(self, pid: object) -> Tensor:
        """The numbers of a storage, one after the other."""
        match pid:
            case ("storage", torch.dtype() as dtype, str(key), str(), int(count)) if count >= 0:
                pass
            case _:
                raise Refused("names a storage as no archive does; take the file from the official download.")
        if key not in self.storages:
            data = self.entry(f"data/{key}", count * dtype.itemsize)
            numbers = torch.frombuffer(bytearray(data), dtype=dtype) if data else torch.empty(0, dtype=dtype)
            self.storages[key] = numbers
        found = self.storages[key]
        if found.dtype != dtype or len(found) != count:
            raise Refused(
                f"its storage {key[:MAX_NAME]} has another size than it claims; get the file again."
            )
        return found


def check_opcodes(content: bytes) -> None:
    """Raises `Refused` for a pickle that holds other steps than torch writes, or numbers its objects wildly."""
    for number, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if opcode.name not in OPCODES:
            raise Refused(
                f"its data.pkl holds the step {opcode.name}, which torch does not write; get it again."
            )
        # The reader makes a table as long as the highest number.
        if opcode.name in ("BINPUT", "LONG_BINPUT") and (not isinstance(argument, int) or argument > number):
            raise Refused("its data.pkl numbers objects that it does not hold; get the file again.")


def tensor_of(numbers: Tensor, offset: int, size: Sequence[int], stride: Sequence[int], *_: object) -> Tensor:
    """A tensor within a storage. Raises `Refused` where it would reach beyond it."""
    whole = [offset, *size, *stride]
    if (
        len(size) != len(stride)
        or len(size) > MAX_DIMENSIONS
        or not all(type(n) is int and n >= 0 for n in whole)
    ):
        raise Refused("holds a tensor whose shape is none; get the file again.")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    count = math.prod([*size])
    if count > len(numbers) or (count and last >= len(numbers)):
        raise Refused("holds a tensor that claims more than its storage has; get the file again.")
    return torch.as_strided(numbers, tuple(size), tuple(stride), offset)


def given(content: object, *_: object) -> object:
    """What it is given: lists are made from lists."""
    return content


MAKERS: Mapping[tuple[str, str], Callable[..., object]] = {
    ("torch._utils", "_rebuild_tensor_v2"): tensor_of,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch.jit._pickle", "build_intlist"): given,
    ("torch.jit._pickle", "build_doublelist"): given,
    ("torch.jit._pickle", "build_boollist"): given,
    ("torch.jit._pickle", "build_tensorlist"): given,
    ("torch.jit._pickle", "restore_type_tag"): given,
}


def tensors_of(tree: object) -> dict[str, Tensor]:
    """The tensors of a tree of modules by their path."""
    found: dict[str, Tensor] = {}
    waiting, seen = [("", 0, tree)], 0
    while waiting:
        path, depth, node = waiting.pop()
        if (
            not isinstance(node, Node)
            or not isinstance(getattr(node, "state", None), dict)
            or depth > MAX_DEPTH
        ):
            raise Refused("holds no tree of modules; take the file from the official download.")
        state = node.state
        assert isinstance(state, dict)
        seen += len(state)
        if seen > MAX_ATTRIBUTES:
            raise Refused(
                f"has more than {MAX_ATTRIBUTES:,} attributes; take the file from the official download."
            )
        for name, value in state.items():
            if not isinstance(name, str) or len(name) > MAX_NAME:
                raise Refused(
                    "has an attribute without a usual name; take the file from the official download."
                )
            if isinstance(value, Tensor):
                found[path + name] = value
            elif isinstance(value, Node):
                waiting.append((f"{path}{name}.", depth + 1, value))
    return found
