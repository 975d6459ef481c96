"""Files made to harm: nothing in them is ever run, and each ends in a sentence."""

import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from faulty import tell

import toy
from albef.config import DataConfig, UserError
from albef.data.images import open_image
from albef.data.prepare.plain_pickle import read_plain_pickle
from albef.data.sources import open_source
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.exchange.clip_files import read_clip
from albef.exchange.pth import read_pth
from albef.manifest import seal_of, verify
from albef.model.albef import ALBEF
from albef.model_directory import read_answers, save_model
from albef.recipe import load_recipe
from albef.search.index import load_index
from albef.tasks.pretrain import Pretrain
from albef.train.checkpoint import CheckpointWriter, load_task, newest_checkpoint
from albef.train.weights_file import read_weights

CANARY = Path(tempfile.gettempdir()) / f"albef-canary-{os.getpid()}"
ESCAPED = CANARY.with_name(f"albef-escaped-{os.getpid()}")


class Harmful:
    """Touches the canary when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.system, (f"touch {CANARY}",)


def pickled() -> bytes:
    return pickle.dumps({"model": Harmful()})


def zipped() -> bytes:
    """As `torch.save` writes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("archive/data.pkl", pickled())
        archive.writestr("archive/version", "3")
        archive.writestr("../" * 20 + ESCAPED.relative_to(ESCAPED.anchor).as_posix(), "out")
    return content.getvalue()


def scripted() -> bytes:
    """As `torch.jit.save` writes."""
    content = io.BytesIO(zipped())
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("archive/constants.pkl", pickled())
    return content.getvalue()


def linked() -> bytes:
    """A tar of a link out of the folder, something to be written through it, and a path that climbs out."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        link = tarfile.TarInfo("pictures")
        link.type, link.linkname = tarfile.SYMTYPE, str(ESCAPED.parent)
        archive.addfile(link)
        for name in (f"pictures/{ESCAPED.name}", "../" * 20 + str(ESCAPED)[1:]):
            archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return content.getvalue()


def objects() -> bytes:
    content = io.BytesIO()
    np.save(content, np.array([Harmful()], dtype=object), allow_pickle=True)
    return content.getvalue()


def npy(descr: str, shape: str, order: str = "False") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header


def tensors(header: bytes, length: int | None = None, rest: bytes = b"") -> bytes:
    """A safetensors file with this header, and what its first eight bytes say of it."""
    return struct.pack("<Q", len(header) if length is None else length) + header + rest


WEIGHTS = {
    "pickle": pickled(),
    "zip with pickle": zipped(),
    "empty": b"",
    "header of 2^63 bytes": tensors(b"{}", 2**63),
    "header of 90 MB": tensors(b"{}", 90_000_000),
    "header that is no JSON": tensors(b"__import__('os').system('touch')"),
    "header nested": tensors(b"[" * 100_000),
    "tensor of 2^60 bytes": tensors(
        json.dumps({"a": {"dtype": "F32", "shape": [2**58], "data_offsets": [0, 2**60]}}).encode()
    ),
    "overlapping tensors": tensors(
        json.dumps({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in ("a", "b")}).encode(),
        rest=bytes(4),
    ),
    "negative shape": tensors(
        b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', rest=bytes(4)
    ),
    "foreign names": tensors(
        b'{"__class__": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', rest=bytes(4)
    ),
}
CONFIGS = {
    "pickle": pickled(),
    "nested": b"[" * 100_000,
    "a list": b"[]",
    "not UTF-8": b"\xff\xfe\x00",
    "no object inside": b'{"format_version": 1, "resize": "bicubic-antialiased-stretch", "__class__": "os.system"}',
    "digits": b'{"format_version": ' + b"9" * 5000 + b"}",
}
TOKENIZERS = {
    "pickle": pickled(),
    "nested": b'{"a":' * 50_000,
    "empty": b"",
    "foreign": b'{"version": "1.0", "model": {"type": "os.system", "vocab": {}}}',
    "not UTF-8": b"\xff\xfe\x00",
}
RECIPES = {
    "python tag": f"train: !!python/object/apply:os.system ['touch {CANARY}']".encode(),
    "python name": b"train: !!python/name:os.system ''",
    "python module in a value": f"model:\n  size: !!python/object/new:os.system [touch {CANARY}]".encode(),
    "class path": b"train:\n  class_path: os.system\n  init_args: {command: touch}",
    "pickle": pickled(),
    "nested": b"[" * 20_000,
    "not UTF-8": b"\xff\xfe\x00",
}
ARRAYS = {
    "objects": objects(),
    "pickle": pickled(),
    "code in the header": npy(f"__import__('os').system('touch {CANARY}')", "(1,)"),
    "2^60 rows": npy("'<f4'", f"({2**60},)"),
    "negative rows": npy("'<f4'", "(-5, 3)"),
    "no header": b"\x93NUMPY\x01\x00\xff\xff",
    "empty": b"",
}
ANSWERS = {
    "pickle": pickled(),
    "nested": b"[" * 100_000,
    "digits": b"[" + b"9" * 5000 + b"]",
    "object": b"{}",
}
PICTURES = {
    "pickle": pickled(),
    "zip": zipped(),
    "svg with a link": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n(touch) (w) file\n",
    "empty": b"",
}
PUBLISHED = {
    "pickle": pickled(),
    "zip with pickle": zipped(),
    "tar": linked(),
    "nested": b"\x80\x02" + b"]" * 100_000,
    "empty": b"",
}
CLIPS = PUBLISHED | {"TorchScript with pickle": scripted()}
MANIFESTS = {"pickle": pickled(), "nested": b"[" * 100_000, "large": b" " * 10_000_001, "digits": b"9" * 5000}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    save_model(
        folder, ALBEF(toy.ENGINE_MODEL), Tokenizer.train(toy.CAPTIONS, toy.ENGINE_MODEL.vocab_size), ""
    )
    return folder


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    task = Pretrain(toy.config())
    with CheckpointWriter(folder, {}, keep=1) as writer:
        writer.save(1, task.state_dict(), {}, {})
    return folder


def in_model(model: Path, folder: Path, name: str, content: bytes) -> Callable[[], object]:
    copy = folder / "model"
    shutil.copytree(model, copy)
    (copy / "manifest.json").unlink(missing_ok=True)  # who makes such a file leaves it out
    (copy / name).write_bytes(content)
    return lambda: Engine.load(copy, quiet=True)


def in_checkpoint(checkpoints: Path, folder: Path, name: str, content: bytes) -> Callable[[], object]:
    """With a manifest that vouches for the harmful file, unless that is the manifest itself."""
    copy = folder / "checkpoints"
    shutil.copytree(checkpoints, copy)
    (step,) = copy.iterdir()
    (step / name).write_bytes(content)
    if name != "manifest.json":
        from albef.manifest import write_manifest

        write_manifest(step, "xxh3-128", {"step": 1})
        verify(step)
        return lambda: load_task(step, toy.config())
    return lambda: newest_checkpoint(copy, lambda text: None)


def in_index(folder: Path, name: str, content: bytes) -> Callable[[], object]:
    np.save(folder / "features.npy", np.zeros((1, 8), np.float32))
    np.save(folder / "tokens.npy", np.zeros((1, 5, 16), np.float16))
    facts = {"format_version": 1, "model": "m", "weights": "w", "num_skipped": 0, "paths": ["/a.jpg"]}
    (folder / "index.json").write_text(json.dumps(facts))
    assert len(load_index(folder)) == 1
    (folder / name).write_bytes(content)
    return lambda: load_index(folder)


def from_file(read: Callable[[Path], object], name: str) -> Callable[[Path, bytes], Callable[[], object]]:
    def prepared(folder: Path, content: bytes) -> Callable[[], object]:
        (folder / name).write_bytes(content)
        return lambda: read(folder / name)

    return prepared


def annotations(file: Path) -> object:
    return open_source(DataConfig(source=str(file)), "train", 0)


def detections(file: Path) -> object:
    rows = file.with_name("rows.json")
    rows.write_text('[{"image": "1.jpg", "text": "a fox"}]')
    data = DataConfig(source=str(rows), detections=str(file))
    return open_source(data, "test", 0, 16, "grounding").record(0, 0)


def cases() -> list[tuple[str, str, bytes]]:
    found = [("model.safetensors", kind, content) for kind, content in WEIGHTS.items()]
    found += [("task.safetensors", kind, content) for kind, content in WEIGHTS.items()]
    found += [("config.json", kind, content) for kind, content in CONFIGS.items()]
    found += [("tokenizer.json", kind, content) for kind, content in TOKENIZERS.items()]
    found += [("manifest.json", kind, content) for kind, content in MANIFESTS.items()]
    found += [("features.npy", kind, content) for kind, content in ARRAYS.items()]
    found += [("tokens.npy", kind, content) for kind, content in ARRAYS.items()]
    found += [("index.json", kind, content) for kind, content in CONFIGS.items()]
    found += [("recipe.yaml", kind, content) for kind, content in RECIPES.items()]
    found += [("answers.json", kind, content) for kind, content in ANSWERS.items()]
    found += [("detections.json", kind, content) for kind, content in ANSWERS.items()]
    found += [("annotations.json", kind, content) for kind, content in ANSWERS.items()]
    found += [("annotations.pkl", "pickle", pickled()), ("annotations.tar", "links", linked())]
    found += [("ALBEF.pth", kind, content) for kind, content in PUBLISHED.items()]
    found += [("ViT-B-32.pt", kind, content) for kind, content in CLIPS.items()]
    found += [("pytorch_model.bin", kind, content) for kind, content in PUBLISHED.items()]
    found += [("refs.p", kind, content) for kind, content in PUBLISHED.items()]
    found += [("picture.png", kind, content) for kind, content in PICTURES.items()]
    return found


@pytest.fixture
def reading(model: Path, checkpoints: Path, tmp_path: Path) -> Callable[[str, bytes], Callable[[], object]]:
    """What reads a file of that name, which has been written with that content."""

    def prepared(name: str, content: bytes) -> Callable[[], object]:
        if name in ("model.safetensors", "config.json", "tokenizer.json"):
            return in_model(model, tmp_path, name, content)
        if name in ("task.safetensors", "manifest.json"):
            return in_checkpoint(checkpoints, tmp_path, name, content)
        if name in ("features.npy", "tokens.npy", "index.json"):
            return in_index(tmp_path, name, content)
        readers: dict[str, Callable[[Path], object]] = {
            "recipe.yaml": load_recipe,
            "answers.json": read_answers,
            "detections.json": detections,
            "annotations.json": annotations,
            "annotations.pkl": annotations,
            "annotations.tar": annotations,
            "ALBEF.pth": read_pth,
            "ViT-B-32.pt": read_clip,
            "pytorch_model.bin": read_weights,
            "refs.p": read_plain_pickle,
            "picture.png": lambda file: open_image(file, obey_exif=True),
        }
        return from_file(readers[name], name)(tmp_path, content)

    return prepared


@pytest.mark.parametrize(
    ("name", "kind", "content"), cases(), ids=lambda part: part if isinstance(part, str) else ""
)
def test_a_harmful_file(reading: Callable, name: str, kind: str, content: bytes) -> None:
    read = reading(name, content)
    with pytest.raises(UserError) as refused:
        read()
    assert not CANARY.exists()
    assert not ESCAPED.exists()
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 1500


def test_the_canary_sings() -> None:
    pickle.loads(pickled())
    assert CANARY.exists()
    CANARY.unlink()
    tell(f"malicious files: {len(cases())}, each refused with a sentence; 0 commands run")


def test_a_manifest_that_names_a_file_elsewhere(tmp_path: Path) -> None:
    files = {"../../etc/passwd": {"bytes": 1, "sha256": ""}}
    content = {"format_version": 1, "seal": seal_of(files, {}), "files": files, "facts": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    with pytest.raises(UserError, match="outside of this folder"):
        verify(tmp_path)


def test_an_index_takes_no_folder_that_links_elsewhere(tmp_path: Path, engine: Engine) -> None:
    """A link in the place of an index is replaced, and what it points to stays."""
    from PIL import Image

    from albef.search.index import build_index

    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years of work")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    (tmp_path / "index").symlink_to(precious)
    with pytest.raises(UserError, match="would be overwritten"):
        build_index(engine, [tmp_path / "a.png"], tmp_path / "index")
    assert (precious / "thesis.txt").read_text() == "years of work"
