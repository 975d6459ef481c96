"""TorchScript archives: their tensors are read, nothing in them is run, and no claim of theirs is believed."""

import contextlib
import io
import os
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import toy_openai
from albef.config import UserError
from albef.exchange import torchscript
from albef.exchange.torchscript import is_torchscript, read_torchscript

CANARY = Path(tempfile.gettempdir()) / f"albef-script-{os.getpid()}"
FLOATS = struct.pack("<6f", *range(6))


class Harmful:
    """Touches the canary when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {CANARY}",)


def text(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content.encode())) + content.encode()


def number(value: int) -> bytes:
    data = value.to_bytes(16, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def module(**attributes: bytes) -> bytes:
    """The steps that make a module with these attributes."""
    items = b"".join(text(name) + value for name, value in attributes.items())
    return b"c__torch__.Model\nModel\n)\x81}(" + items + b"ub"


def tensor(
    key: str = "0",
    count: int = 6,
    offset: int = 0,
    size: tuple[int, ...] = (2, 3),
    stride: tuple[int, ...] = (3, 1),
    storage: bytes = b"ctorch\nFloatStorage\n",
) -> bytes:
    """The steps that make a tensor."""
    place = b"(" + text("storage") + storage + text(key) + text("cuda:0") + number(count) + b"tQ"
    hooks = b"ccollections\nOrderedDict\n)R"
    shape = number(offset) + numbers(*size) + numbers(*stride)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + place + shape + b"\x89" + hooks + b"tR"


def archive(tree: bytes, packed: bool = False, **entries: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        file.writestr("a/data.pkl", tree if tree[:1] == b"\x80" else b"\x80\x02" + tree + b".")
        file.writestr("a/constants.pkl", b"\x80\x02).")
        for name, data in ({"data_0": FLOATS} | entries).items():
            file.writestr(f"a/{name.replace('_', '/')}", data)
    return content.getvalue()


def shared(levels: int) -> bytes:
    """Modules of two names for one module of two names and so on."""
    tree = module(w=tensor())
    for _ in range(levels):
        both = text("a") + tree + b"q\x00" + text("b") + b"h\x00"
        tree = b"c__torch__.M\nM\n)\x81}(" + both + b"ub"
    return tree


HARMFUL = {
    "a command": pickle.dumps(Harmful(), protocol=2),
    "a command by the newest protocol": pickle.dumps(Harmful(), protocol=5),
    "a command by the oldest protocol": f"\x80\x02(S'touch {CANARY}'\nios\nsystem\n.".encode("latin1"),
    "a command in a module": module(w=pickle.dumps(Harmful(), protocol=2)[2:-1]),
    "torch's own loader": module(w=b"ctorch\nload\n(" + text(str(CANARY)) + b"tR"),
    "getattr": module(w=b"c__builtin__\ngetattr\n(" + text("a") + text("b") + b"tR"),
    "a module that is called": b"c__torch__\nM\n(" + text("a") + b"tR",
    "a type that is called": module(w=b"ctorch\nFloatStorage\n(" + text("a") + b"tR"),
    "an object of a wild number": b"\x80\x02}r\xff\xff\xff\xff.",
    "a storage of another kind": module(w=tensor(storage=b"cos\nsystem\n")),
    "a storage that is not there": module(w=tensor(key="7")),
    "a storage elsewhere": module(w=tensor(key="../../a/data.pkl")),
    "a storage larger than its bytes": module(w=tensor(count=7)),
    "a storage smaller than its bytes": module(w=tensor(count=5)),
    "a storage of 2^60 numbers": module(w=tensor(count=2**60, size=(2**60,), stride=(1,))),
    "a storage of -1 numbers": module(w=tensor(count=-1)),
    "a storage of two sizes": module(v=tensor(), w=tensor(count=3, storage=b"ctorch\nDoubleStorage\n")),
    "a storage id of one word": module(w=text("storage") + b"Q"),
    "a tensor beyond its storage": module(w=tensor(offset=1)),
    "a tensor before its storage": module(w=tensor(offset=-1)),
    "a tensor that repeats its numbers": module(w=tensor(size=(2**50,), stride=(0,))),
    "a tensor that goes backwards": module(w=tensor(stride=(-3, 1))),
    "a tensor of nothing, 2^100 times": module(w=tensor(size=(0, 2**100), stride=(1, 1))),
    "a tensor of more strides than sizes": module(w=tensor(stride=(1, 1, 1))),
    "a tensor of 20 dimensions": module(w=tensor(size=(1,) * 20, stride=(1,) * 20)),
    "no module": tensor(),
    "a module without attributes": b"c__torch__\nM\n)\x81",
    "a module whose attributes are a list": b"c__torch__\nM\n)\x81]b",
    "an attribute without a name": b"c__torch__\nM\n)\x81}(" + number(1) + tensor() + b"ub",
    "a name of 1,000 letters": module(**{"w" * 1000: tensor()}),
    "2^30 modules out of thirty": shared(30),
    "a module in itself": b"c__torch__\nM\n)\x81q\x00}(" + text("a") + b"h\x00ub",
    "a pickle that is cut off": b"\x80\x02" + module(w=tensor())[:-5],
    "nothing": b"\x80",
}


@pytest.fixture(autouse=True)
def _no_canary() -> None:
    CANARY.unlink(missing_ok=True)


@pytest.mark.parametrize("tree", HARMFUL.values(), ids=HARMFUL)
def test_a_harmful_archive_is_refused_in_a_sentence(tree: bytes, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    file.write_bytes(archive(tree))
    with pytest.raises(UserError) as refused:
        read_torchscript(file)
    assert not CANARY.exists()
    assert str(refused.value).startswith(f"{file}: ")
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 800


def test_the_canary_sings() -> None:
    pickle.loads(HARMFUL["a command"])
    assert CANARY.exists()
    CANARY.unlink()


def test_an_archive_made_by_hand_is_read(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    tree = module(
        training=b"\x88",
        sizes=b"ctorch.jit._pickle\nbuild_intlist\n(](" + number(1) + number(2) + b"etR",
        inner=module(
            weight=tensor(offset=1, size=(2, 2), stride=(1, 3)), empty=tensor(size=(0,), stride=(1,))
        ),
        weight=tensor(),
    )
    file.write_bytes(archive(tree))
    assert is_torchscript(file)
    found = read_torchscript(file)
    assert list(found) == ["weight", "inner.weight", "inner.empty"]
    assert found["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert found["inner.weight"].tolist() == [[1, 4], [2, 5]]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (archive(module(w=tensor()), packed=True, data_1=bytes(10_000)), "packed"),
        (archive(module(w=tensor()), byteorder=b"big"), "order of bytes"),
        (archive(module(w=tensor()))[:-40], "not a readable"),
        (archive(module(w=tensor())) + bytes(70_000), "not a readable"),
        (archive(module(w=tensor())).replace(b"a/data.pkl", b"a/data.pkx"), "one data.pkl"),
    ],
    ids=["packed", "big-endian", "cut off", "longer", "without a tree"],
)
def test_an_archive_that_is_none(content: bytes, problem: str, tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    file.write_bytes(content)
    with pytest.raises(UserError, match=problem):
        read_torchscript(file)


def test_a_tree_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "model.pt"
    file.write_bytes(archive(module(w=tensor())))
    monkeypatch.setattr(torchscript, "MAX_TREE_BYTES", 10)
    with pytest.raises(UserError, match="larger than it may be"):
        read_torchscript(file)


def test_storages_together_are_no_larger_than_the_file(tmp_path: Path) -> None:
    """Two entries of the directory that lead to the same bytes."""
    file = tmp_path / "model.pt"
    large = bytes(4 * 300)
    tree = module(**{f"w{n}": tensor(str(n), 300, size=(300,), stride=(1,)) for n in range(9)})
    content = archive(tree, **{f"data_{n}": large for n in range(9)})
    file.write_bytes(content)
    assert len(read_torchscript(file)) == 9
    with zipfile.ZipFile(file) as whole:
        reader = torchscript.ModuleUnpickler(whole, len(content) // 2)
        with pytest.raises(torchscript.Refused, match="larger than it may be"):
            reader.tree()


@pytest.mark.parametrize("traced", [False, True], ids=["scripted", "traced"])
def test_a_real_archive_has_the_tensors_of_its_state_dict(traced: bool, tmp_path: Path) -> None:
    model = toy_openai.published()
    file = toy_openai.save(model, tmp_path / "model.pt", traced)
    found, expected = read_torchscript(file), model.state_dict()
    assert set(found) - set(expected) <= {f"transformer.resblocks.{n}.attn_mask" for n in range(2)}
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


@settings(max_examples=60)
@given(st.data())
def test_damage_ends_in_a_sentence(data: st.DataObject) -> None:
    tree = bytearray(b"\x80\x02" + module(inner=module(weight=tensor()), weight=tensor()) + b".")
    for _ in range(data.draw(st.integers(1, 3))):
        tree[data.draw(st.integers(1, len(tree) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt"
        file.write_bytes(archive(bytes(tree)))
        with contextlib.suppress(UserError):  # and nothing else
            read_torchscript(file)
