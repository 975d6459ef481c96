"""Files of regions in their published formats, at toy sizes."""

from __future__ import annotations

import base64

import numpy as np

from albef.data.lxmert_tsv import COLUMNS


def encoded(numbers: np.ndarray) -> str:
    return base64.b64encode(numbers.tobytes()).decode()


def lxmert_row(count: int = 3, width: int = 5, seed: int = 0, **changed: str) -> bytes:
    """A row of LXMERT's TSV with random regions; its image is image{seed}."""
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.random((count, 2, 2), dtype=np.float32), 1) * np.array([40, 30], np.float32)
    row = {
        "img_id": f"image{seed}",
        "img_h": "30",
        "img_w": "40",
        "objects_id": encoded(rng.integers(0, 1600, count)),
        "objects_conf": encoded(rng.random(count, dtype=np.float32)),
        "attrs_id": encoded(rng.integers(0, 400, count)),
        "attrs_conf": encoded(rng.random(count, dtype=np.float32)),
        "num_boxes": str(count),
        "boxes": encoded(corners.reshape(count, 4)),
        "features": encoded(rng.random((count, width), dtype=np.float32)),
    }
    return ("\t".join({**row, **changed}[name] for name in COLUMNS) + "\n").encode()
