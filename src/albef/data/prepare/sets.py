"""`albef data prepare`: which module prepares which data set, and what it wrote."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from albef.config import UserError
from albef.data.prepare.coco_captions import coco_captions
from albef.data.prepare.conceptual_captions import cc3m, cc12m
from albef.data.prepare.easy_vqa import easy_vqa
from albef.data.prepare.karpathy import coco, flickr30k
from albef.data.prepare.nlvr2 import nlvr2
from albef.data.prepare.referring import refcoco, refcoco_plus, refcocog
from albef.data.prepare.sbu import sbu
from albef.data.prepare.snli_ve import snli_ve
from albef.data.prepare.visual_genome import visual_genome
from albef.data.prepare.vqa import vqa
from albef.data.prepare.writing import Files, Training, Written
from albef.data.region_files import open_regions
from albef.writing import whole_folder

SETS: dict[str, Callable[[Path, Files], Training]] = {
    "coco": coco,
    "flickr30k": flickr30k,
    "coco-captions": coco_captions,
    "visual-genome": visual_genome,
    "sbu": sbu,
    "cc3m": cc3m,
    "cc12m": cc12m,
    "vqa": vqa,
    "snli-ve": snli_ve,
    "nlvr2": nlvr2,
    "refcoco": refcoco,
    "refcoco+": refcoco_plus,
    "refcocog": refcocog,
    "easy-vqa": easy_vqa,
}


@dataclass(frozen=True)
class Prepared:
    """What was written, how many images are missing (listed in missing.txt), notes, and the next command."""

    files: list[Written]
    missing: int
    notes: list[str]
    command: str


def prepare(name: str, source: Path, out: Path, regions: str = "") -> Prepared:
    """Writes the set's rows into `out`, whole or not at all. The images stay below `source`.

    With `regions`, a file or a folder as `data.regions` names it, images need not be there, but their regions must.

    Raises `UserError` for a file or folder that is missing (and names its download) or cannot be read, for a bad row,
    if no image is found, and if the disk is full.
    """
    if not source.is_dir():
        raise UserError(f"{source}: no such folder. Correct --from.")
    store = open_regions(regions, width=0) if regions else None  # which is only asked what images it has
    try:
        with whole_folder(out, hash_name=None) as partial:
            files = Files(source, partial, store)
            training = SETS[name](source, files)
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror}. Nothing was written.") from None
    return Prepared(files.written, files.missing, files.notes, training.command(out, source, regions))
