"""Sources of records: annotation files, folders of images with texts, and the embedded pictograms."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from albef.config import DataConfig, TaskName, UserError, is_drawn
from albef.data.annotations import ENDINGS, AnnotationSource
from albef.data.folder import FolderSource
from albef.data.proposals import ProposalSource
from albef.data.records import LeftOut, Record, stable_id
from albef.data.rows import ROWS


class Source(Protocol):
    """Records by number. The same (index, epoch) gives the same record in every process."""

    couple: int  # 2 if records 2k and 2k + 1 belong side by side in a batch, else 1
    notes: Sequence[
        str
    ] = ()  # sentences about parts of the data that are not used, or that look like mistakes
    left_out: Sequence[LeftOut] = ()

    def __len__(self) -> int: ...

    def record(self, index: int, epoch: int) -> Record: ...


def open_source(
    config: DataConfig, split: str, seed: int, image_size: int = 64, task: TaskName = "pretrain"
) -> Source:
    """The records that `config.source` names, as the task reads them.

    "pictograms" is generated from (split, seed), with `image_size` pixels a side. Anything else is a file or folder of
    the user, which is a single split. Raises `UserError` if nothing is usable, and for data that do not suit the task.
    """
    if is_drawn(config.source):
        check_pictograms(config.source, split, task)
        if config.source == "pictograms":
            return PictogramSource(config, split, seed, image_size)
        return PictogramTaskSource(config, split, seed, image_size)
    path = Path(os.path.expanduser(config.source))
    if os.path.isdir(path):
        if not ROWS[task].folder:
            raise UserError(
                f"{path}: a folder of images only has captions, but task {task} needs an annotation file ({ENDINGS})."
            )
        return FolderSource(path)
    if not os.path.isfile(path):
        raise UserError(
            f'{path}: no such file or folder. data.source can be "pictograms", an annotation file '
            f"({ENDINGS}) or a folder of images with a .txt beside each."
        )
    # Training cannot use a question without an answer, but prediction can. For a phrase without a box it is the reverse.
    judged = ROWS[task].judged
    only_judged = judged is None or judged.learned is (split == "train")
    with_images = not config.regions  # a system that sees regions needs no images
    source = AnnotationSource(path, config.image_root, task, config.strip_prefix, only_judged, with_images)
    if (
        judged and judged.key == "box" and config.detections and split != "train"
    ):  # training does not use boxes
        return ProposalSource(source, Path(os.path.expanduser(config.detections)))
    return source


# Splits that questions (VQA) and statements (NLVR2) about pictograms cannot have, and why.
WITHOUT = {
    "unseen_pair": "in which things never are alone and some are never shown",
    "unseen_template": "which words captions as training never does; its texts have no other wordings",
}


def check_pictograms(source: str, split: str, task: TaskName) -> None:
    """Raises `UserError` for an unknown split, and for pictograms of another task."""
    # Imported here: users of their own data need not load the drawings.
    from albef.data.pictograms.scenes import SPLITS

    if split not in SPLITS:
        raise UserError(f"pictograms has no split {split!r}: choose one of {', '.join(SPLITS)}.")
    boxes = (
        task == "grounding" and split != "train"
    )  # evaluation needs fields that scenes of other tasks lack
    if (boxes or not ROWS[task].scenes) and source != f"pictograms:{task}":
        raise UserError(f"data.source {source!r} is not for task {task}: set data.source=pictograms:{task}.")
    if split in WITHOUT and source in ("pictograms:vqa", "pictograms:nlvr"):
        raise UserError(
            f"{source} has no split {split}, {WITHOUT[split]}: "
            f"choose one of {', '.join(other for other in SPLITS if other not in WITHOUT)}."
        )


class PictogramSource(Source):
    """The embedded scenes: new images in every epoch, often in twins that differ in one thing."""

    couple = 2

    def __init__(self, config: DataConfig, split: str, seed: int, image_size: int) -> None:
        # Imported here: users of their own data need not load the drawings.
        from albef.data.pictograms.gallery import Pictograms

        self._split, self._seed = split, seed
        self.pairs = Pictograms(
            split=split,
            seed=seed,
            count=config.count,
            num_nouns=config.num_nouns,
            image_size=image_size,
            caption_noise=config.caption_noise if split == "train" else 0.0,
            twin_share=config.twin_share,
            mix=config.mix if split == "train" else None,
            twins_from_epoch=config.twins_from_epoch,
            twin_aspects=config.twin_aspects,
        )

    def __len__(self) -> int:
        return len(self.pairs)

    def record(self, index: int, epoch: int) -> Record:
        """Scene `index` of that epoch, with one caption."""
        item = self.pairs.item(index, epoch)
        origin = f"pictograms, {self._split}, seed {self._seed}, epoch {epoch}, scene {index}"
        return Record(
            image=item.image,
            captions=(item.caption,),
            image_id=stable_id(origin),  # the next epoch's scene of this number is another image
            caption_ids=(item.meaning,),
            origin=origin,
        )


class PictogramTaskSource(Source):
    """The embedded version of another task, `pictograms:vqa` and so on: new scenes in every epoch."""

    def __init__(self, config: DataConfig, split: str, seed: int, image_size: int) -> None:
        # Imported here: users of their own data need not load the drawings.
        from albef.data.pictograms import questions, references, statements
        from albef.data.pictograms.world import World

        records: dict[str, Callable[[World, int, int], Record]] = {
            "retrieval": references.retrieval_record,
            "vqa": questions.question_record,
            "entailment": statements.entailment_record,
            "nlvr": statements.nlvr_record,
            "grounding": references.grounding_record,
        }
        name = config.source.removeprefix("pictograms:")
        if name not in records:
            raise UserError(
                f"data.source {config.source!r} is unknown: choose one of pictograms, "
                f"{', '.join(f'pictograms:{known}' for known in records)}."
            )
        self.couple = 2 if name == "nlvr" else 1
        self._count, self._record = config.count, records[name]
        self._world = World(split, seed, config.num_nouns, image_size)

    def __len__(self) -> int:
        return self._count

    def record(self, index: int, epoch: int) -> Record:
        """Record `index` of that epoch."""
        return self._record(self._world, index, epoch)
