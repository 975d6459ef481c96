"""SNLI-VE: sentences that a Flickr30k image entails, contradicts or leaves open."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from albef.data.prepare.karpathy import flickr30k_folder
from albef.data.prepare.reading import Row, find, objects
from albef.data.prepare.writing import Files, Training
from albef.data.rows import text_at

OLD_KEY = "Flikr30kID"  # the spelling in the first files


def snli_ve(source: Path, files: Files) -> Training:
    """Writes ve_train.json, ve_dev.json and ve_test.json."""
    folder = flickr30k_folder(files)
    for split in ("train", "dev", "test"):
        annotations = find(source, f"snli_ve_{split}.jsonl", origin="SNLI-VE")
        files.rows(f"ve_{split}.json", "entailment", sentence_rows(annotations, folder))
    return Training("entailment", {"source": "ve_train.json", "validation": "ve_dev.json"})


def sentence_rows(annotations: Path, folder: Path) -> Iterator[Row]:
    """The hypotheses. The premise is the image, named without .jpg, as published."""
    for where, row in objects(annotations):
        number = text_at(row, OLD_KEY if OLD_KEY in row else "Flickr30K_ID", where).removesuffix(".jpg")
        yield (
            where,
            {
                "image": str(folder / number),
                "sentence": text_at(row, "sentence2", where),
                "label": text_at(row, "gold_label", where),
            },
        )
