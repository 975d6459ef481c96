"""Writes pictograms as files (images and the published JSON), as an example of the format."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from albef.data.pictograms.gallery import Pictograms
from albef.writing import whole_folder


def export_pictograms(
    folder: Path, split: str, count: int, seed: int, num_nouns: int, image_size: int
) -> Path:
    """Writes images to `images/` and an annotation file of `image`, `caption` (a list) and `image_id`. Returns its path.

    Raises `UserError` if the folder is not empty, or if it cannot be written.
    """
    pictograms = Pictograms(split, seed, count, num_nouns, image_size)
    rows = []
    with whole_folder(folder, hash_name=None) as temporary:
        (temporary / "images").mkdir()
        for index in range(count):
            name = f"images/{index:06d}.png"
            Image.fromarray(pictograms.item(index).image).save(temporary / name)
            rows.append({"image": name, "caption": pictograms.captions(index), "image_id": index})
        (temporary / f"{split}.json").write_text(json.dumps(rows, indent=1), "utf-8")
    return folder / f"{split}.json"
