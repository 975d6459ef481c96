"""What this machine offers for training: versions, devices, memory, limits, disk space."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from albef.config import Config
from albef.disk import size
from albef.engine import choose_device
from albef.gpu import GPU, gpus
from albef.train.checkpoint import versions
from albef.train.kernel_choice import choose

SHARED_MEMORY = Path("/dev/shm")  # data workers pass their batches through it
FEW_FILES, LITTLE_SHARED, LITTLE_DISK = 1024, 10**9, 10 * 10**9  # files, bytes, bytes


def findings(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Name, value, and advice where something may run short, for training that writes to `folder`."""
    for name, version in versions().items():
        yield name, version, ""
    yield "platform", f"{platform.system()} {platform.machine()}", ""
    yield "CPU cores", f"{os.cpu_count()}; torch uses {torch.get_num_threads()}", ""
    yield "memory", size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), ""
    device = choose_device("auto")
    yield from of_gpus(gpus())
    yield "precision and kernels for size base", choose(Config(), device)[1], ""
    yield "CPU instruction set", torch.backends.cpu.get_cpu_capability(), ""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield (
        "open files",
        f"{soft} (can be raised to {hard})",
        "" if soft > FEW_FILES else f"If data.workers is large, first run: ulimit -n {hard}",
    )
    if SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free
        advice = (
            ""
            if free >= LITTLE_SHARED
            else "May be too little for data workers: set data.workers=0, or make /dev/shm larger."
        )
        yield "shared memory", size(free), advice
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    advice = (
        ""
        if free >= LITTLE_DISK
        else "Size base needs more: a checkpoint has 3.5 GB, and up to three are on the disk at once."
    )
    yield f"free disk at {place}", size(free), advice


def of_gpus(found: Sequence[GPU]) -> Iterator[tuple[str, str, str]]:
    """Each GPU with its memory and precision, and how to use several."""
    if not found:
        yield "device", "CPU", ""
    for number, one in enumerate(found):
        several = len(found) > 1 and number == 0
        advice = (
            f"To train on all of them: torchrun --nproc-per-node={len(found)} -m albef train …"
            if several
            else ""
        )
        if not one.bf16:
            advice = f"It has no bf16, so training computes in fp32. {advice}".rstrip()
        yield (
            f"GPU {number}",
            f"{one.name}, {size(one.memory_bytes)}, {'bf16' if one.bf16 else 'fp32'}",
            advice,
        )
