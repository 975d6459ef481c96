"""What was freed is not asked of the system again."""

import subprocess
import sys

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
