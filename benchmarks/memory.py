"""Memory: of a sample while its gradient is awaited, and of re-ranking a gallery."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch
from published import published_losses
from section import Section
from step import STAGE, batch_of, build
from timing import live
from torch import Tensor

from albef.config import SIZES

BATCH = 2
TARGET = 5_000  # images of the largest published evaluation (COCO), with CAPTIONS captions each
CAPTIONS, TOP_K = 5, 128


def saved_megabytes(task: torch.nn.Module, losses: object) -> float:
    """Megabytes that `losses()` keeps for the backward pass, parameters and inputs that exist anyway left out."""
    known = {tensor.untyped_storage().data_ptr() for tensor in [*task.parameters(), *task.buffers()]}
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        kept = losses()  # type: ignore[operator]  # alive until counted
    total = sum(storages.values())
    del kept
    return total / 2**20


def activations_section(size: str) -> list[Section]:
    """Activations of one more pair under bf16 autocast."""
    torch.manual_seed(0)
    rows = []
    for name, encoders in (("ours", ()), ("ours, image encoder checkpointed", ("image",))):
        config = SIZES[size]
        task, counts = build(config, queue_size=1024), (BATCH, 2 * BATCH)
        task.student.checkpoint(encoders)
        megabytes = []
        for count in counts:
            batch = batch_of(config, count)

            def losses(task=task, batch=batch) -> object:  # type: ignore[no-untyped-def]
                with torch.autocast("cpu", torch.bfloat16):
                    return task(batch, task.prepare(batch, STAGE), STAGE)

            megabytes.append(saved_megabytes(task, losses))
        rows.append([name, f"{(megabytes[1] - megabytes[0]) / BATCH:.0f} MB"])
    task = build(SIZES[size], queue_size=1024)
    megabytes = []
    for count in (BATCH, 2 * BATCH):
        batch = batch_of(SIZES[size], count)

        def theirs(task=task, batch=batch) -> object:  # type: ignore[no-untyped-def]
            with torch.autocast("cpu", torch.bfloat16):
                return published_losses(task, batch, STAGE.alpha)

        megabytes.append(saved_megabytes(task, theirs))
    rows.insert(0, ["published", f"{(megabytes[1] - megabytes[0]) / BATCH:.0f} MB"])
    text = (
        f"Size {size}, captions of up to 25 tokens, bf16 autocast. "
        f"This is what autograd keeps for one more pair in the batch, measured from {BATCH} to {2 * BATCH} pairs. "
        "Copies of the weights in bf16 are the same for any batch, so they do not count."
    )
    return [Section("How much memory does one more pair need?", text, ["formulation", "memory"], rows)]


def gallery_section(size: str, quick: bool) -> list[Section]:
    """Peak memory of evaluating a gallery above that of the model, each in a process of its own."""
    galleries = (4, 8) if quick else (250, 500, 1000)
    target = 50 if quick else TARGET
    rows = []
    for images in galleries:
        found = measured("whole", size, images)
        rows.append([f"{images:,} × {images * CAPTIONS:,}", "all of it", *found])
    found = measured("bookkeeping", size, target)
    rows.append([f"{target:,} × {target * CAPTIONS:,}", f"candidates ({TOP_K} each) and ranks", *found])
    text = (
        f"Size {size}, images × captions. This is the peak of resident memory above that of the loaded model. "
        "Its weights are random, and each encoder has one layer; further layers would use the same memory again. "
        '"All of it" means features, re-ranking of the two best candidates of each query, and ranks. '
        "The last row has the size of the largest published evaluation. "
        f"There only the bookkeeping is measured, with {TOP_K} candidates for each query and without ITM. "
        "Passes through the model need as much as in the rows above, whatever the gallery."
    )
    return [
        Section(
            "How much memory does evaluating a gallery need?",
            text,
            ["gallery", "what", "above the model", "seconds"],
            rows,
        )
    ]


def measured(what: str, size: str, images: int) -> list[str]:
    """Peak memory and wall time, as `gallery.py` reports them."""
    script = Path(__file__).with_name("gallery.py")
    live(f"{what}: a gallery of {images:,} images")
    command = [sys.executable, str(script), what, size, str(images), str(CAPTIONS), str(TOP_K)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    live("")
    return [f"{found['bytes'] / 2**20:,.0f} MB", f"{found['seconds']:.0f}"]
