"""Files of regions in their published formats, at toy sizes."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from pathlib import Path

import lmdb
import lz4.frame
import msgpack
import numpy as np
from hypothesis import strategies as st

from albef.data.lxmert_tsv import COLUMNS


def encoded(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def lxmert_row(
    count: int = 3, width: int = 5, seed: int = 0, objects: int = 1600, attributes: int = 400, **changed: str
) -> bytes:
    """A row of LXMERT's TSV with random regions; its image is image{seed}."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2), dtype=np.float32), 1) * np.array([40, 30], np.float32)
    row = {
        "img_id": f"image{seed}",
        "img_h": "30",
        "img_w": "40",
        "objects_id": encoded(rng.integers(0, objects, count)),
        "objects_conf": encoded(rng.random(count, dtype=np.float32)),
        "attrs_id": encoded(rng.integers(0, attributes, count)),
        "attrs_conf": encoded(rng.random(count, dtype=np.float32)),
        "num_boxes": str(count),
        "boxes": encoded(corners.reshape(count, 4)),
        "features": encoded(rng.random((count, width), dtype=np.float32)),
    }
    return ("\t".join({**row, **changed}[name] for name in COLUMNS) + "\n").encode()


def uniter_arrays(count: int = 3, width: int = 5, seed: int = 0, classes: int = 4) -> dict[str, np.ndarray]:
    """The arrays of a record of UNITER's database."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((2, count, 2)), axis=0).astype(np.float16)
    return {
        "norm_bb": np.concatenate([*corners, corners[1] - corners[0]], 1),
        "features": rng.random((count, width)).astype(np.float16),
        "conf": rng.random((count, 1)).astype(np.float16),
        "soft_labels": rng.random((count, classes)).astype(np.float16),
    }


def packed_array(array: np.ndarray) -> dict[bytes, object]:
    """An array as msgpack-numpy puts it."""
    return {
        b"nd": True,
        b"type": array.dtype.str,
        b"kind": b"",
        b"shape": array.shape,
        b"data": array.tobytes(),
    }


def uniter_record(arrays: dict[str, np.ndarray], compressed: str = "") -> bytes:
    """A record of UNITER's database, in an LZ4 frame, or as the .npz that an older numpy wrote."""
    if compressed == "npz":
        content = io.BytesIO()
        np.savez_compressed(content, **arrays)
        with zipfile.ZipFile(content, "a") as archive, archive.open("allow_pickle.npy", "w") as entry:
            np.save(entry, np.array(True))
        return content.getvalue()
    record = msgpack.packb({name: packed_array(array) for name, array in arrays.items()}, use_bin_type=True)
    return lz4.frame.compress(record) if compressed else record


def uniter_database(folder: Path, records: dict[str, bytes]) -> Path:
    """A database as UNITER's scripts write it."""
    with lmdb.open(str(folder), map_size=2**24) as database, database.begin(write=True) as writing:
        for key, record in records.items():
            writing.put(key.encode(), record)
    return folder


def oscar_numbers(count: int = 3, width: int = 5, seed: int = 0) -> np.ndarray:
    """Features and boxes as rows of OSCAR's features.tsv have them."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((2, count, 2), np.float32), axis=0)
    return np.concatenate([rng.random((count, width), np.float32), *corners, corners[1] - corners[0]], 1)


def oscar_row(name: str, numbers: np.ndarray) -> str:
    """A row of OSCAR's features.tsv."""
    return f"{name}\t{len(numbers)}\t{encoded(numbers)}\n"


def labels_row(name: str, objects: list[dict[str, object]], **others: object) -> str:
    """A row of OSCAR's predictions.tsv."""
    return f"{name}\t{json.dumps({'image_h': 30, 'image_w': 40, 'objects': objects} | others)}\n"


def vinvl_object(name: str, width: int = 5, seed: int = 0) -> dict[str, object]:
    """An object in a row of VinVL's predictions.tsv, with its feature."""
    rng = np.random.default_rng(seed)
    return {
        "class": name,
        "conf": 0.5,
        "rect": np.sort(rng.integers(0, 30, (2, 2)), 0).flatten().tolist(),
        "feature": encoded(rng.random(width, np.float32)),
    }


def indexed(file: Path, rows: list[str], ids: bool = False) -> Path:
    """A TSV with these rows, its .lineidx and, if asked for, imageid2idx.json."""
    offsets = np.cumsum([0, *(len(row.encode()) for row in rows)])[:-1]
    file.write_text("".join(rows), "utf-8")
    file.with_suffix(".lineidx").write_text("".join(f"{offset}\n" for offset in offsets))
    if ids:
        names = {row.split("\t")[0]: number for number, row in enumerate(rows)}
        (file.parent / "imageid2idx.json").write_text(json.dumps(names))
    return file


def mutated(content: bytes, data: st.DataObject) -> bytes:
    """The content cut short, or with up to four other bytes, not both: a cut hides most changes."""
    if data.draw(st.integers(0, 4)) == 0:
        return content[: data.draw(st.integers(0, len(content) - 1))]
    changed = bytearray(content)
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        changed[place] = data.draw(st.integers(0, 255))
    return bytes(changed)
