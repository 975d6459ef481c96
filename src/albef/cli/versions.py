"""Versions and hardware in one line, for bug reports."""

from __future__ import annotations

import argparse
import platform
import re
from pathlib import Path
from typing import Any

from albef import __version__


def versions_line() -> str:
    """One line: the versions of albef, Python and torch, and the GPUs or the CPU."""
    import torch  # slow to load, and not needed for help

    count = torch.cuda.device_count()
    device = ", ".join(torch.cuda.get_device_name(number) for number in range(count)) or cpu()
    return f"albef {__version__}, Python {platform.python_version()}, torch {torch.__version__}, {device}"


def cpu() -> str:
    """The name of the CPU, and the widest instruction set of it that torch uses."""
    import torch

    name = platform.processor() or platform.machine()
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text("utf-8"), re.MULTILINE)
        name = found[1] if found else name
    except OSError:
        pass  # only Linux has this file
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


class Version(argparse.Action):
    """The option `--version`: prints the line and stops."""

    def __init__(self, option_strings: list[str], dest: str, **named: Any) -> None:
        super().__init__(
            option_strings,
            dest,
            nargs=0,
            default=argparse.SUPPRESS,
            help="show the versions of albef, Python and torch, and the GPU or CPU",
        )

    def __call__(self, parser: argparse.ArgumentParser, *given: Any) -> None:
        print(versions_line())
        parser.exit()
