"""Pictograms as files: pictures and the published JSON, so that users see the format by example."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from albef.config import UserError
from albef.data.pictograms.gallery import Pictograms


def export_pictograms(
    folder: Path, split: str, count: int, seed: int, num_nouns: int, image_size: int
) -> Path:
    """The path of the annotation file: rows of `image`, `caption` (a list) and `image_id`; pictures in `images/`.

    Raises `UserError` if the folder has something else in it.
    """
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: choose another folder with --out, or delete it.")
    pictograms = Pictograms(split, seed, count, num_nouns, image_size)
    (folder / "images").mkdir(parents=True)
    rows = []
    for index in range(count):
        name = f"images/{index:06d}.png"
        Image.fromarray(pictograms.item(index).image).save(folder / name)
        rows.append({"image": name, "caption": pictograms.captions(index), "image_id": index})
    annotations = folder / f"{split}.json"
    annotations.write_text(json.dumps(rows, indent=1), "utf-8")
    return annotations
