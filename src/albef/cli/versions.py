"""The versions and the machine, in the one line that a bug report needs."""

from __future__ import annotations

import argparse
import platform
import re
from pathlib import Path
from typing import Any

from albef import __version__


def versions_line() -> str:
    """albef, Python and torch with their versions, and the GPUs or the CPU."""
    import torch  # slow to load, and not needed for help

    count = torch.cuda.device_count()
    device = ", ".join(torch.cuda.get_device_name(number) for number in range(count)) or cpu()
    return f"albef {__version__}, Python {platform.python_version()}, torch {torch.__version__}, {device}"


def cpu() -> str:
    """The CPU's name, and the widest instructions that torch uses of it."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
        name = found[1] if found else name
    except OSError:
        pass  # other systems say it above
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


class Version(argparse.Action):
    """Prints the line of versions and stops."""

    def __init__(self, option_strings: list[str], dest: str, **named: Any) -> None:
        super().__init__(
            option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="versions, and the machine"
        )

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        print(versions_line())
        parser.exit()
