"""Writes an .npz of regions for each image: the patches of a model's image encoder, for systems on regions.

    python scripts/grid_regions.py runs/quickstart my-images

The model is any of system albef or clip. No detector is needed, and no thing has a box of its own: every image has the
same grid of boxes. The regions of dir/1.jpg are dir/1.npz, or 1.npz in the folder after --out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

from albef import Engine
from albef.config import UserError
from albef.data.files import summary
from albef.data.images import BadImage, open_image
from albef.model.verbs import Grid
from albef.search.index import counted, find_images
from albef.writing import whole_file


def grid_boxes(grid: Grid, across: float = 1.0, down: float = 1.0) -> Float32[np.ndarray, "places 4"]:
    """The boxes of patches, row by row, as shares of the image. The grid has this share of its width and height."""
    rows, columns = np.mgrid[0 : grid.rows, 0 : grid.columns].reshape(2, -1)
    corners = [(columns + i, rows + i) for i in (0, 1)]
    left, top, right, bottom = (
        (1 - share) / 2 + share * place / number
        for x, y in corners
        for place, number, share in ((x, grid.columns, across), (y, grid.rows, down))
    )
    return np.stack([left, top, right, bottom], 1).astype(np.float32).clip(0, 1)


def seen_share(image: Path, engine: Engine) -> tuple[float, float]:
    """Which share of an image's width and height the model sees."""
    if engine.config.fit == "stretch":
        return 1.0, 1.0
    height, width = open_image(image, obey_exif=True).shape[:2]  # CLIP sees the square in its centre
    return min(1.0, height / width), min(1.0, width / height)


def places_of(images: Sequence[Path], out: Path | None, replace: bool) -> list[Path]:
    """The file of each image's regions. Raises `UserError` if two images have one, or if it is there."""
    found: dict[Path, Path] = {}
    for image in images:
        file = (out or image.parent) / f"{image.stem}.npz"
        if file in found:
            raise UserError(f"{image} and {found[file]}: both would have {file}; rename one of them.")
        if file.exists() and not replace:
            raise UserError(f"{file}: is there already; choose a folder with --out, or give --replace.")
        found[file] = image
    return list(found)


def write_regions(
    engine: Engine, images: Sequence[Path], files: Sequence[Path], batch_size: int
) -> dict[int, BadImage]:
    """Writes the regions of each image. Returns why images cannot be read, by their number."""
    bad: dict[int, BadImage] = {}
    grid, number = engine.model.places, 0
    for encoding in engine.image_encodings(images, batch_size, bad):
        tokens: Float[np.ndarray, "images tokens width"] = encoding.tokens.float().cpu().numpy()
        for patches in tokens[:, -grid.rows * grid.columns :]:  # the class token comes before them
            while number in bad:
                number += 1
            boxes = grid_boxes(grid, *seen_share(images[number], engine))
            with whole_file(files[number]) as temporary, temporary.open("wb") as file:
                np.savez(file, features=patches.astype(np.float16), boxes=boxes)
            number += 1
    return bad


def main(arguments: Sequence[str] | None = None) -> None:
    """Writes the regions of all images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("model", metavar="MODEL", help="run or model directory of system albef or clip")
    parser.add_argument(
        "images", metavar="IMAGES", type=Path, nargs="+", help="image files, and folders with images"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder for all files (default: beside each image)"
    )
    parser.add_argument("--replace", action="store_true", help="replace files that are there")
    parser.add_argument(
        "--batch-size", type=int, default=64, metavar="N", help="images at once (default: 64)"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: auto)")
    given = parser.parse_args(arguments)
    try:
        images, left_out = find_images(given.images)
        files = places_of(images, given.out, given.replace)
        engine = Engine.load(given.model, given.device)
        if given.out:
            given.out.mkdir(parents=True, exist_ok=True)
        bad = write_regions(engine, images, files, given.batch_size)
        for error in bad.values():
            print(error, file=sys.stderr)
        grid, width = engine.model.places, engine.config.image_width
        where = f" --data.regions={given.out}" if given.out else ""
        print(
            f"Written: regions of {counted(len(images) - len(bad), 'image')}, {grid.rows} × {grid.columns} each"
            f"{f'; {len(bad)} skipped' if bad else ''}. {summary(left_out)}".rstrip()
        )
        print(f"Train with:{where} --model.region_width={width}")
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
