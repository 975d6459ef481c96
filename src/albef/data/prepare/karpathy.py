"""COCO and Flickr30k for retrieval, in the splits of Karpathy and Fei-Fei (CVPR 2015)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from albef.config import UserError
from albef.data.prepare.reading import Row, find, number_at, objects, objects_at
from albef.data.prepare.writing import Files, Training
from albef.data.rows import text_at
from albef.data.text_files import quoted

SPLITS = ("train", "val", "test")
# The rest of COCO's validation set is part of the training split, as is usual.
SPLIT_OF = {"train": "train", "restval": "train", "val": "val", "test": "test"}
ORIGIN = 'Karpathy\'s splits, "caption_datasets.zip"'

Image = tuple[str, str]  # path and id


def coco(source: Path, files: Files) -> Training:
    """Writes coco_train.json, coco_val.json and coco_test.json."""
    folders: dict[str, Path] = {}

    def image(row: dict[str, Any], where: str) -> Image:
        folder = text_at(row, "filepath", where)
        if folder not in folders:
            folders[folder] = files.images(folder, origin=f"COCO 2014, {folder}.zip")
        return str(
            folders[folder] / text_at(row, "filename", where)
        ), f"coco_{number_at(row, 'cocoid', where)}"

    return write_splits("coco", find(source, "dataset_coco.json", origin=ORIGIN), files, image)


def flickr30k(source: Path, files: Files) -> Training:
    """Writes flickr30k_train.json, flickr30k_val.json and flickr30k_test.json."""
    annotations = find(source, "dataset_flickr30k.json", origin=ORIGIN)
    folder = flickr30k_folder(files)

    def image(row: dict[str, Any], where: str) -> Image:
        name = text_at(row, "filename", where)
        return str(folder / name), name.removesuffix(".jpg")

    return write_splits("flickr30k", annotations, files, image)


def flickr30k_folder(files: Files) -> Path:
    """The path of Flickr30k's images. SNLI-VE uses the same images."""
    names = ("flickr30k-images", "flickr30k_images/flickr30k_images", "flickr30k_images")
    return files.images(*names, origin="Flickr30k, flickr30k-images.tar.gz")


def write_splits(
    name: str, annotations: Path, files: Files, image: Callable[[dict[str, Any], str], Image]
) -> Training:
    """Writes the three splits of a Karpathy file. `image` returns the path and id of a row's image."""
    for split in SPLITS:
        files.rows(f"{name}_{split}.json", "retrieval", split_rows(annotations, split, image))
    return Training(f"retrieval-{name}", {"source": f"{name}_train.json", "validation": f"{name}_val.json"})


def split_rows(annotations: Path, split: str, image: Callable[[dict[str, Any], str], Image]) -> Iterator[Row]:
    """Rows of a split. For training a row per caption, for evaluation a row per image with all its captions."""
    for where, row in objects(annotations, "images"):
        its_split = text_at(row, "split", where)
        if its_split not in SPLIT_OF:
            raise UserError(
                f'{where}: "split" is {quoted(its_split)}; it must be one of {", ".join(SPLIT_OF)}.'
            )
        if SPLIT_OF[its_split] != split:
            continue
        path, image_id = image(row, where)
        captions = [text_at(each, "raw", where) for each in objects_at(row, "sentences", where)]
        if split == "train":
            for caption in captions:
                yield where, {"image": path, "caption": caption, "image_id": image_id}
        else:
            yield where, {"image": path, "caption": captions, "image_id": image_id}
