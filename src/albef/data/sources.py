"""Where records come from: annotation files, folders of pictures with texts, the embedded pictograms."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from albef.config import DataConfig, TaskName, UserError, is_drawn
from albef.data.formats import SUFFIXES
from albef.data.json_rows import json_rows, jsonl_rows
from albef.data.records import Record, stable_id
from albef.data.rows import SCHEMA, Columns, columns, require_key


class Source(Protocol):
    """Records by number; the same (index, epoch) gives the same record in every process."""

    couple: int  # 2 when records 2k and 2k + 1 belong side by side in a batch, else 1

    def __len__(self) -> int: ...

    def record(self, index: int, epoch: int) -> Record: ...


def open_source(
    config: DataConfig, split: str, seed: int, image_size: int = 64, task: TaskName = "pretrain"
) -> Source:
    """The records that `config.source` names, as the task reads them.

    "pictograms" is drawn from (split, seed), `image_size` pixels a side; anything else is a file or a folder
    of the user's, which is one split by itself. Raises `UserError` when there is nothing usable, and for data that the
    task can't learn from.
    """
    if is_drawn(config.source):
        check_pictograms(config.source, split, task)
        if config.source == "pictograms":
            return PictogramSource(config, split, seed, image_size)
        return PictogramTaskSource(config, split, seed, image_size)
    path = Path(config.source).expanduser()
    if path.is_dir():
        if task not in OF_CAPTIONS:
            raise UserError(
                f"{path}: a folder of pictures has captions alone; task {task} needs an annotation file "
                f"({', '.join(_READERS)})."
            )
        return FolderSource(path)
    if not path.is_file():
        raise UserError(
            f'{path}: no such file or folder; data.source is "pictograms", an annotation file '
            f"({', '.join(_READERS)}) or a folder of pictures with a .txt beside each."
        )
    source = AnnotationSource(path, config.image_root, task)
    if task == "grounding" and config.detections and split != "train":  # training looks at no boxes
        return ProposalSource(source, Path(config.detections).expanduser())
    if (
        task == "vqa"
        and split == "train"
        and not any(source.record(n, 0).answers for n in range(len(source)))
    ):
        raise UserError(f'{path}: no question has an "answer" to learn from; take the training questions.')
    return source


OF_CAPTIONS: tuple[TaskName, ...] = ("pretrain", "retrieval", "text_assignment")
# Tasks whose data have more than pictures and texts.
OF_THEIR_OWN: tuple[TaskName, ...] = ("vqa", "entailment", "nlvr")
# Splits that questions (VQA) and statements (NLVR2) about pictograms can't have, and why.
WITHOUT = {
    "unseen_pair": "in which things never are alone and some are never shown",
    "unseen_template": "which words captions as training never does; its texts have no other wordings",
}


def check_pictograms(source: str, split: str, task: TaskName) -> None:
    """Raises `UserError` for a split that there isn't, and for pictograms of another task."""
    # Imported here: users of their own data need not load the drawings.
    from albef.data.pictograms.scenes import SPLITS

    if split not in SPLITS:
        raise UserError(f"pictograms has no split {split!r}: choose one of {', '.join(SPLITS)}.")
    if task in OF_THEIR_OWN and source != f"pictograms:{task}":
        raise UserError(f"data.source {source!r} is not for task {task}: set data.source=pictograms:{task}.")
    if split in WITHOUT and source in ("pictograms:vqa", "pictograms:nlvr"):
        raise UserError(
            f"{source} has no split {split}, {WITHOUT[split]}: "
            f"choose one of {', '.join(other for other in SPLITS if other not in WITHOUT)}."
        )


class AnnotationSource:
    """The rows of a JSON, JSONL, CSV or TSV file, each with what `rows.py` says of the task."""

    couple = 1

    def __init__(self, path: Path, image_root: str = "", task: TaskName = "pretrain") -> None:
        if path.suffix.lower() not in _READERS:
            raise UserError(
                f"{path}: unknown kind of annotation file; give it one of the endings {', '.join(_READERS)}."
            )
        root = Path(image_root).expanduser() if image_root else path.parent
        if not root.is_dir():
            raise UserError(f"{root}: no such folder; correct data.image_root.")
        rows = _READERS[path.suffix.lower()](path)
        try:
            self._table = _table(
                columns(row, task, f"{path}, {place}") | {"place": place} for place, row in rows
            )
        except (UnicodeDecodeError, UnicodeEncodeError) as error:
            raise UserError(f"{path}: not UTF-8 text ({error.reason}); save it as UTF-8.") from None
        if not len(self):
            raise UserError(f"{path}: holds no rows.")
        self._name, self._root = path.name, root

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def record(self, index: int, epoch: int) -> Record:
        """Row `index`, the same in every epoch."""
        row: Columns = dict.fromkeys(SCHEMA.names)
        row.update({name: self._table[name][index].as_py() for name in self._table.column_names})
        second = row["second_image"]
        return Record(
            image=self._root / row["image"],
            captions=tuple(row["captions"]),
            image_id=row["image_id"],
            caption_ids=None,
            origin=f"{self._name}, {row['place']}",
            second_image=None if second is None else self._root / second,
            label=row["label"],
            answers=tuple(row["answers"] or ()),
            answer_weights=tuple(row["answer_weights"] or ()),
            key=row["key"] or "",
            box=None if row["box"] is None else tuple(row["box"]),
        )


class ProposalSource:
    """The rows of an annotation file, each with the boxes that a detector proposed for its picture."""

    couple = 1

    def __init__(self, source: AnnotationSource, detections: Path) -> None:
        self._source, self._detections = source, detections
        try:
            self._boxes = json.loads(detections.read_text("utf-8-sig"))
        except (OSError, ValueError, RecursionError) as error:
            raise UserError(
                f"{detections}: not readable as JSON ({error}); correct data.detections."
            ) from None
        if not isinstance(self._boxes, dict):
            raise UserError(f'{detections}: expected {{"image number": [[x, y, w, h], …]}}.')

    def __len__(self) -> int:
        return len(self._source)

    def record(self, index: int, epoch: int) -> Record:
        """Row `index` with its picture's proposals; the picture's number is the last one in its name."""
        record = self._source.record(index, epoch)
        numbers = re.findall(r"\d+", Path(str(record.image)).stem)
        boxes = self._boxes.get(str(int(numbers[-1])) if numbers else "")
        if not boxes:
            raise UserError(
                f"{self._detections}: has no boxes for the picture of {record.origin} ({record.image}); add them under "
                f"the picture's number, or leave the detections out."
            )
        try:
            proposals = tuple((float(x), float(y), float(w), float(h)) for x, y, w, h, *_ in boxes)
        except (TypeError, ValueError):
            raise UserError(
                f"{self._detections}: the boxes of picture {int(numbers[-1])} are not [x, y, width, height, …]; "
                f"correct them."
            ) from None
        return replace(record, proposals=proposals)


class FolderSource:
    """The pictures in a folder and below it; each line of the .txt beside a picture is a caption of it."""

    couple = 1

    def __init__(self, folder: Path) -> None:
        pictures = sorted(
            path.relative_to(folder).as_posix()
            for path in folder.rglob("*")
            if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
        )
        if not any((folder / name).with_suffix(".txt").is_file() for name in pictures):
            raise UserError(
                f"{folder}: none of its {len(pictures)} pictures has a .txt beside it; "
                "write the captions of cat.jpg into cat.txt, one a line."
            )
        self._folder, self._pictures = folder, pa.array(pictures, pa.large_string())

    def __len__(self) -> int:
        return len(self._pictures)

    def record(self, index: int, epoch: int) -> Record:
        """Picture `index` in the order of the names; without captions when its .txt can't be read."""
        name = self._pictures[index].as_py()
        picture = self._folder / name
        try:
            lines = picture.with_suffix(".txt").read_text("utf-8-sig", errors="replace").splitlines()
        except OSError:  # missing, not ours to read, a folder: a bad sample, and no end of the run
            lines = []
        return Record(
            image=picture,
            captions=tuple(line for line in lines if line.strip()),
            image_id=None,
            caption_ids=None,
            origin=name,
        )


class PictogramSource:
    """The embedded scenes: new pictures in every epoch, often in couples that differ in one thing."""

    couple = 2

    def __init__(self, config: DataConfig, split: str, seed: int, image_size: int) -> None:
        # Imported here: users of their own data need not load the drawings.
        from albef.data.pictograms.gallery import Pictograms

        self._split, self._seed = split, seed
        self._pairs = Pictograms(
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
        return len(self._pairs)

    def record(self, index: int, epoch: int) -> Record:
        """Scene `index` of that epoch, with one caption."""
        item = self._pairs.item(index, epoch)
        origin = f"pictograms, {self._split}, seed {self._seed}, epoch {epoch}, scene {index}"
        return Record(
            image=item.image,
            captions=(item.caption,),
            image_id=stable_id(origin),  # the next epoch's scene of this number is another picture
            caption_ids=(item.meaning,),
            origin=origin,
        )


class PictogramTaskSource:
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


# Rows are kept in Arrow columns: millions of them as Python objects would take gigabytes in every process.
def _table(rows: Iterable[Columns]) -> pa.Table:
    rows, batches = iter(rows), []
    while chunk := list(islice(rows, 65_536)):
        batches.append(pa.RecordBatch.from_pylist(chunk, SCHEMA))
    table = pa.Table.from_batches(batches, SCHEMA).combine_chunks()
    # A column that the task does not have would cost as much as one that it has.
    return table.drop_columns([name for name in SCHEMA.names if table[name].null_count == len(table)])


def _csv_rows(path: Path) -> Iterator[tuple[str, object]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, dialect=csv.excel_tab if path.suffix.lower() == ".tsv" else csv.excel)
        try:
            if reader.fieldnames:
                for key in ("image", "caption"):  # tables hold pairs only
                    require_key(reader.fieldnames, key, f"{path}, header")
            for row in reader:
                if None in row or None in row.values():
                    raise UserError(
                        f"{path}, line {reader.line_num}: not as many fields as the header has; "
                        "put captions that contain the separator in double quotes."
                    )
                yield f"line {reader.line_num}", row
        except csv.Error as error:
            raise UserError(f"{path}, line {reader.line_num}: broken table ({error}); correct it.") from None


_READERS = {".json": json_rows, ".jsonl": jsonl_rows, ".csv": _csv_rows, ".tsv": _csv_rows}
