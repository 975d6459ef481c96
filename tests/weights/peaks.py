"""The memory of one `albef` command at its most.

Each command is a process of its own, whose peak is what Linux says it was: VmHWM, all resident pages, those of mapped
files included; and the largest RssAnon among samples taken every 20 ms, without them.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

TORCH_BYTES = 400_000_000  # of a process that has imported torch and done nothing yet, with some room


class Peak(NamedTuple):
    """The memory of a process at its most, in bytes, and how long it ran."""

    resident: int
    anonymous: int
    seconds: float


def run(*arguments: str) -> Peak:
    """The peak of one `albef` command."""
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-m", "albef", *arguments])
    status, resident, anonymous = Path(f"/proc/{process.pid}/status"), 0, 0
    while process.poll() is None:
        facts = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in facts:
            resident = max(resident, int(facts["VmHWM"].split()[0]) * 1024)
            anonymous = max(anonymous, int(facts["RssAnon"].split()[0]) * 1024)
        time.sleep(0.02)
    assert process.returncode == 0
    return Peak(resident, anonymous, time.monotonic() - started)
