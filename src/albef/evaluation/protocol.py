"""The protocol that a figure of retrieval belongs to. Two different protocols are called zero-shot."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from albef.config import is_drawn
from albef.model_directory import Trained

ProtocolName = Literal["direct", "transferred", "fine-tuned", "unknown"]
# Parts of an annotation file's name that name the split, not the data set.
SPLITS = {
    "train",
    "restval",
    "trainval",
    "val",
    "valid",
    "validation",
    "dev",
    "test",
    "testa",
    "testb",
    "karpathy",
    "all",
}
OF_4M = frozenset({"coco", "vg", "sbu", "cc3m"})
# Known data sets, by their files' names without the split, as `albef data prepare` and the published checkpoints name
# them → the sets that their images come from. RefCOCO's images and half of Visual Genome's are COCO's.
SETS: dict[str, frozenset[str]] = {
    "pictograms": frozenset({"pictograms"}),
    "coco": frozenset({"coco"}),
    "coco_captions": frozenset({"coco"}),
    "mscoco": frozenset({"coco"}),
    "flickr30k": frozenset({"flickr30k"}),
    "refcoco": frozenset({"coco"}),
    "refcoco+": frozenset({"coco"}),
    "refcocog": frozenset({"coco"}),
    "vg": frozenset({"vg", "coco"}),
    "sbu": frozenset({"sbu"}),
    "cc3m": frozenset({"cc3m"}),
    "cc12m": frozenset({"cc12m"}),
    "pretrain_4m": OF_4M,
    "albef_4m": OF_4M,
    "pretrain_14m": OF_4M | {"cc12m"},
    "albef": OF_4M | {"cc12m"},
}
FOR_PAIRS = ("retrieval", "grounding")  # tasks that fine-tune on pairs


class Protocol(NamedTuple):
    """What a model had seen before evaluation, as a word and as a sentence."""

    name: ProtocolName
    sentence: str


def protocol(trained: Trained | None, data: str) -> Protocol:
    """The protocol if a model with this training is measured on these data (a `data.source`).

    "direct": pre-trained only. "transferred": fine-tuned on another set. "fine-tuned": fine-tuned on the same set.
    "unknown": the training or the data are not among `SETS`. The published zero-shot figures are direct for COCO and
    transferred for Flickr30k (docs/published.md).
    """
    if trained is None or not trained.data:
        return Protocol(
            "unknown",
            "It is unknown whether this is zero-shot: the model does not say what it was trained on.",
        )
    learned, measured = images_of(trained.data), images_of(data)
    if learned is None or measured is None:
        return Protocol(
            "unknown",
            f"It is unknown whether this is zero-shot: {short(data) if learned else trained.data} is not the name of a "
            f"known data set (docs/tasks/retrieval.md lists them).",
        )
    same = bool(learned & measured)
    if trained.task not in FOR_PAIRS:
        said = "Not zero-shot (same data set), direct" if same else "Zero-shot, direct"
        return Protocol("direct", f"{said}: trained by {trained.task} on {trained.data}, not fine-tuned.")
    if same:
        return Protocol(
            "fine-tuned",
            f"Not zero-shot: fine-tuned for {trained.task} on {trained.data}, which has images of the same set.",
        )
    return Protocol(
        "transferred",
        f"Zero-shot, transferred: fine-tuned for {trained.task} on {trained.data}, evaluated on {short(data)}.",
    )


def short(data: str) -> str:
    """A `data.source` with its last folder only."""
    return data if is_drawn(data) else "/".join(Path(data).parts[-2:])


def images_of(data: str) -> frozenset[str] | None:
    """The data sets that a source's images come from. None for an unknown name.

    The name is the file's name without the split, or the folder's name if the file is named by its split alone.
    """
    if is_drawn(data):
        return SETS["pictograms"]
    path = Path(data)
    return SETS.get(set_name(path.stem) or set_name(path.parent.name))


def set_name(name: str) -> str:
    """A name without the parts that name a split: "flickr30k" for "Flickr30k-test"."""
    parts = name.lower().replace("-", "_").split("_")
    return "_".join(part for part in parts if part not in SPLITS)
