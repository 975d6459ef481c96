"""What was freed is not asked of the system again."""

import ctypes
import subprocess
import sys
from types import SimpleNamespace

import pytest

from albef.train.allocator import MMAP_THRESHOLD, TRIM_THRESHOLD, keep_freed_memory

# Pages are handed out one by one, and each is counted as a fault.
SCRIPT = """
import resource
from albef.train.allocator import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"x") * 2**26
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

before = [faults() for _ in range(3)]
keep_freed_memory()
print(before[-1], [faults() for _ in range(3)][-1])
"""


def test_freed_memory_is_used_again() -> None:
    out = subprocess.run([sys.executable, "-c", SCRIPT], check=True, capture_output=True, text=True).stdout
    before, after = map(int, out.split())
    assert before > 1000
    assert after < 100


def test_an_older_glibc_gets_the_most_that_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[int, int] = {}

    def mallopt(name: int, value: int) -> int:
        if name == MMAP_THRESHOLD and value > 2**25:
            return 0
        taken[name] = value
        return 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    assert taken == {MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**31 - 1}
