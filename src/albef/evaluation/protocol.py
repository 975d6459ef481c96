"""Which of the protocols of retrieval a figure belongs to: two are called zero-shot, and are not the same."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple

from albef.config import is_drawn
from albef.model_directory import Trained

ProtocolName = Literal["direct", "transferred", "fine-tuned", "unknown"]
# Parts of an annotation file's name that say which split it is, not which set.
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
# The data sets that are known, by their files' names without the split (`albef data prepare` writes them, and so the
# published checkpoints are called), and whose images each has: RefCOCO's and half of Visual Genome's are COCO's.
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
FOR_PAIRS = ("retrieval", "grounding")  # tasks that train with pairs beyond pre-training


class Protocol(NamedTuple):
    """What a model had seen before it was evaluated, in a word and in a sentence."""

    name: ProtocolName
    sentence: str


def protocol(trained: Trained | None, data: str) -> Protocol:
    """How a model with this training meets the data (a `data.source`) that its retrieval is measured on.

    "direct": pre-trained weights; "transferred": fine-tuned on another set; "fine-tuned": on a split of the same set;
    "unknown": one of the two is none of the `SETS`. The published zero-shot figures are direct for COCO and transferred
    for Flickr30k (docs/published.md).
    """
    if trained is None or not trained.data:
        return Protocol(
            "unknown", "Whether this is zero-shot is unknown: the model does not say what it was trained on."
        )
    learnt, measured = images_of(trained.data), images_of(data)
    if learnt is None or measured is None:
        return Protocol(
            "unknown",
            f"Whether this is zero-shot is unknown: the name {short(data) if learnt else trained.data} does not tell "
            f"which data set that is (docs/tasks/retrieval.md lists the names that do).",
        )
    same = bool(learnt & measured)
    if trained.task not in FOR_PAIRS:
        said = "Direct, but not zero-shot (images of the same set)" if same else "Zero-shot, direct"
        return Protocol(
            "direct", f"{said}: pre-trained weights ({trained.task} on {trained.data}), not fine-tuned."
        )
    if same:
        return Protocol(
            "fine-tuned",
            f"Not zero-shot: fine-tuned for {trained.task} on {trained.data}, images of the same set.",
        )
    return Protocol(
        "transferred",
        f"Zero-shot, transferred: fine-tuned for {trained.task} on {trained.data}, evaluated on {short(data)}.",
    )


def short(data: str) -> str:
    """A `data.source` without the folders before the last."""
    return data if is_drawn(data) else "/".join(Path(data).parts[-2:])


def images_of(data: str) -> frozenset[str] | None:
    """The sets whose images a source has; None for a name that tells nothing.

    The name is that of the file without its split, or of the folder where the file is called by its split alone.
    """
    if is_drawn(data):
        return SETS["pictograms"]
    path = Path(data)
    return SETS.get(set_name(path.stem) or set_name(path.parent.name))


def set_name(name: str) -> str:
    """A name without the parts that say which split it is: "flickr30k" for "Flickr30k-test"."""
    parts = name.lower().replace("-", "_").split("_")
    return "_".join(part for part in parts if part not in SPLITS)
