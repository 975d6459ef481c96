"""What a checkpoint costs at base size: how long it holds the training up, writing, verifying, loading.

python benchmarks/checkpoints.py [FOLDER]      (needs 15 GB of memory and 8 GB of disk)
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from pathlib import Path

import torch

from albef.config import Config
from albef.manifest import verify
from albef.tasks.pretrain import Pretrain
from albef.train.checkpoint import CheckpointWriter, load_checkpoint, optimizer_tensors
from albef.train.optim import build_optimizer


def main() -> None:
    """Prints the seconds of each part, and verification as a share of saving and loading."""
    place = Path(tempfile.mkdtemp(dir=sys.argv[1] if len(sys.argv) > 1 else None))
    config = Config()
    task = Pretrain(config)
    optimizer = build_optimizer(task.student, config.train)
    for parameter in task.student.parameters():  # a step of zeros makes the optimizer's state
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    try:
        begun = time.perf_counter()
        with CheckpointWriter(place, {}, keep=1) as writer:
            writer.save(1, task.state_dict(), optimizer_tensors(optimizer), {})
            held_up = time.perf_counter() - begun
        saving = time.perf_counter() - begun
        assert not writer.failure, writer.failure
        (folder,) = place.iterdir()
        size = sum(file.stat().st_size for file in folder.iterdir())
        begun, cpu = time.perf_counter(), time.process_time()
        verify(folder)
        verifying, cpu = time.perf_counter() - begun, time.process_time() - cpu
        begun = time.perf_counter()
        load_checkpoint(folder, task, optimizer)
        loading = time.perf_counter() - begun
    finally:
        shutil.rmtree(place)
    print(f"size {size / 1e9:.2f} GB; training held up {held_up:.2f} s of {saving:.2f} s of saving")
    print(f"verifying {verifying:.2f} s ({cpu:.2f} s of CPU time), loading {loading:.2f} s")
    print(f"verification: {100 * verifying / (saving + loading):.1f} % of saving and loading")


if __name__ == "__main__":
    main()
