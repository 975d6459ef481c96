"""What a training on this machine has to do with: versions, devices, limits, room."""

from __future__ import annotations

import os
import platform
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from albef.config import Config
from albef.engine import choose_device
from albef.train.checkpoint import versions
from albef.train.kernel_choice import choose

SHARED_MEMORY = Path("/dev/shm")  # where data workers leave their batches
FEW_FILES, LITTLE_SHARED, LITTLE_DISK = 1024, 2**30, 10 * 2**30


def findings(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Name, finding, and advice where something may become a hindrance, for a training that writes into `folder`."""
    for name, version in versions().items():
        yield name, version, ""
    yield "platform", f"{platform.system()} {platform.machine()}", ""
    yield "processors", f"{os.cpu_count()}, of which torch uses {torch.get_num_threads()}", ""
    yield "memory", size(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")), ""
    device = choose_device("auto")
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    yield "device", ", ".join(names) or "CPU", ""
    yield "precision and kernels of the base model", choose(Config(), device)[1], ""
    yield "CPU kernels", torch.backends.cpu.get_cpu_capability(), ""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield (
        "open files",
        f"{soft} (up to {hard})",
        "" if soft > FEW_FILES else f"With many data workers: ulimit -n {hard}",
    )
    if SHARED_MEMORY.is_dir():
        free = shutil.disk_usage(SHARED_MEMORY).free
        advice = (
            ""
            if free >= LITTLE_SHARED
            else "Data workers may need more: data.workers=0, or a larger /dev/shm."
        )
        yield "shared memory", size(free), advice
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(place).free
    advice = (
        ""
        if free >= LITTLE_DISK
        else "A checkpoint of the base model has 3.5 GB, and three are there at times."
    )
    yield f"disk left at {place}", size(free), advice


def size(number: int) -> str:
    """Bytes for readers."""
    return f"{number / 2**30:,.1f} GB"
