"""The search for slips that no test notices finds one in a toy package, and lets go of those that are noticed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from mutants import CONCERNS, Mutant, Project, draw, mutants_of, mutated  # noqa: E402

SUMS = '''"""Sums."""
from typing import Literal
Kind = Literal["a"]

def larger(a: int, b: int = 0) -> int:
    """The larger one, at least 1."""
    if a > b:
        return a
    while True:
        b += 1
        return b
'''
TESTS = """from sums_of.sums import larger

def test_the_larger_one():
    assert larger(3, 2) == 3
    assert larger(2, 3) == 4
"""
RUN = """import sys
import hypothesis, pytest  # once, for all that are forked from here
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from mutants import Project, draw, judge
root = Path(sys.argv[2])
project = Project(root / "sums_of", root / "tests", {"": ("test_sums.py",)})
for mutant, killed in judge(project, draw(project, 99, 0), jobs=2):
    print(killed, mutant)
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    for file, text in (("sums_of/__init__.py", ""), ("sums_of/sums.py", SUMS), ("tests/test_sums.py", TESTS)):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(text)
    return Project(tmp_path / "sums_of", tmp_path / "tests", {"": ("test_sums.py",)})


def test_what_is_noticed_and_what_is_not(project: Project) -> None:
    root = project.package.parent
    command = [sys.executable, "-c", RUN, str(ROOT / "scripts"), str(root)]
    told = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=200)
    assert told.returncode == 0, told.stdout + told.stderr
    assert set(told.stdout.splitlines()) == {
        "False sums.py:5: 0 → (1)",  # nobody leaves it out
        "False sums.py:7: a > b → (a >= b)",  # nobody asks for equal ones
        "True sums.py:8: return a → return None",
        "True sums.py:9: True → (False)",
        "True sums.py:10: b += 1 → pass",
        "True sums.py:10: b += 1 → b -= 1",
        "True sums.py:10: 1 → (2)",
        "True sums.py:11: return b → return None",
    }
    assert (project.package / "sums.py").read_text() == SUMS


def test_tests_that_fail_anyway_are_told_of(project: Project) -> None:
    (project.tests / "test_sums.py").write_text(TESTS.replace("== 4", "== 5"))
    command = [sys.executable, "-c", RUN, str(ROOT / "scripts"), str(project.package.parent)]
    told = subprocess.run(command, capture_output=True, text=True, cwd=project.tests, timeout=200)
    assert told.returncode == 1
    assert "Tests fail without any slip" in told.stderr


def test_a_seed_draws_the_same_changes(project: Project) -> None:
    assert draw(project, 4, 7) == draw(project, 4, 7) != draw(project, 4, 8)
    assert len(draw(project, 4, 7)) == 4
    assert draw(project, 9, 0, only=["other.py"]) == []


def test_a_change_is_made_where_it_says() -> None:
    text = 'x = "é" if a else b == 1\n'
    changed = {mutated(text, one) for one in mutants_of(text, "x.py")}
    assert 'x = "é" if a else (b != 1)\n' in changed
    assert 'x = ("é")\n' not in changed
    assert "x = ('é')\n" in changed
    assert str(Mutant("a.py", 3, 0, 1, "x", "(y)")) == "a.py:3: x → (y)"


def test_every_test_that_concerns_a_module_is_there() -> None:
    package, tests = ROOT / "src" / "albef", ROOT / "tests"
    for beginning, concerning in CONCERNS.items():
        assert (package / beginning).exists(), beginning
        assert [test for test in concerning if not (tests / test).exists()] == []
