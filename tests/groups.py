"""Groups of processes in tests."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist


@contextlib.contextmanager
def one_of(size: int, rank: int, folder: Path) -> Iterator[None]:
    """This process as one of a group that meets in a folder, with one thread."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/store",
        rank=rank,
        world_size=size,
        timeout=timedelta(minutes=4),
    )
    yield
    dist.destroy_process_group()
