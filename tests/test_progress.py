"""What can no longer be printed is no error."""

import os
import subprocess
import sys

CODE = """
import sys
from albef.progress import say, show
say("first")
sys.stdin.read(1)  # until the reader has gone
for _ in range(3):
    say("next")
    show("and next")
print("at the end")
"""


def started(stdout: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", CODE]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE)


def test_a_reader_that_has_gone_stops_nothing() -> None:
    program = started(subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == b"first\n"
    program.stdout.close()
    _, said = program.communicate(b"x", timeout=60)
    assert (program.returncode, said) == (0, b"")


def test_a_terminal_that_has_been_closed_stops_nothing() -> None:
    ours, theirs = os.openpty()
    program = started(theirs)
    os.close(theirs)
    assert os.read(ours, 5) == b"first"
    os.close(ours)
    _, said = program.communicate(b"x", timeout=60)
    assert (program.returncode, said) == (0, b"")


def test_a_full_disk_stops_nothing() -> None:
    code = "from albef.progress import say, show; say('a'); show('b'); import os; os._exit(7)"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (7, b"")
