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
OTHER_NAMES = {"mscoco": "coco"}  # the published mscoco.pth
FOR_PAIRS = ("retrieval", "grounding")  # tasks that train with pairs beyond pre-training


class Protocol(NamedTuple):
    """What a model had seen before it was evaluated, in a word and in a sentence."""

    name: ProtocolName
    sentence: str


def protocol(trained: Trained | None, data: str) -> Protocol:
    """How a model with this training meets the data (a `data.source`) that its retrieval is measured on.

    "direct": pre-trained weights; "transferred": fine-tuned on another set; "fine-tuned": on a split of the same set.
    The published zero-shot figures are direct for COCO and transferred for Flickr30k (docs/published.md).
    """
    if trained is None:
        return Protocol(
            "unknown", "Whether this is zero-shot is unknown: the model does not say what it was trained on."
        )
    same = set_name(trained.data) == set_name(data)
    if trained.task not in FOR_PAIRS:
        said = "Direct, but not zero-shot (the same set)" if same else "Zero-shot, direct"
        return Protocol(
            "direct", f"{said}: pre-trained weights ({trained.task} on {trained.data}), not fine-tuned."
        )
    if same:
        return Protocol(
            "fine-tuned", f"Not zero-shot: fine-tuned for {trained.task} on {trained.data}, the same set."
        )
    return Protocol(
        "transferred",
        f"Zero-shot, transferred: fine-tuned for {trained.task} on {trained.data}, evaluated on {short(data)}.",
    )


def short(data: str) -> str:
    """A `data.source` without the folders before the last."""
    return data if is_drawn(data) else "/".join(Path(data).parts[-2:])


def set_name(data: str) -> str:
    """The data set that a source is a split of: "flickr30k" for flickr30k_test.json, else the folder of test.json."""
    if is_drawn(data):
        return "pictograms"
    path = Path(data)
    parts = [OTHER_NAMES.get(part, part) for part in path.stem.lower().replace("-", "_").split("_")]
    return "_".join(part for part in parts if part not in SPLITS) or path.parent.name.lower()
