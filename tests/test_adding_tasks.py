"""A task is one line in each of a few tables, besides its objective, its measure and its data."""

import ast
from collections import defaultdict
from pathlib import Path
from typing import get_args

import pytest

from albef.cli.measuring import TO_MEASURE
from albef.cli.predicting import VERBS
from albef.config import TaskName
from albef.data.rows import ROWS
from albef.evaluation.by_task import MEASURED
from albef.report.report import TOLD
from albef.systems import SYSTEMS

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "albef"
TABLES = {
    "config.py": "TaskName",
    "systems.py": "SYSTEMS",
    "data/rows.py": "ROWS",
    "data/sources.py": "records",
    "evaluation/by_task.py": "MEASURED",
    "report/report.py": "TOLD",
    "cli/predicting.py": "VERBS",
    "cli/measuring.py": "OF_TASK",
    "exchange/structure.py": "STRUCTURES",
}
# Where single tasks have files of their own, and where a task's name is that of a model's head.
OWN = ("tasks/", "peers/", "data/pictograms/", "data/prepare/")
HEADS = ("model/albef.py", "model/verbs.py", "engine/engine.py")
# Which tasks teach pairs, and the task that stands for all where none is named.
OTHERS = (
    "evaluation/protocol.py",
    "agreement.py",
    "data/annotations.py",
    "cli/info.py",
    "exchange/exporting.py",
    "exchange/lxmert_files.py",
    "exchange/oscar_files.py",
    "exchange/uniter_files.py",
    "exchange/clip_importing.py",
)


def naming() -> dict[str, set[str]]:
    """The files that name each task."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and node.value in get_args(TaskName):
                found[node.value].add(path.relative_to(PACKAGE).as_posix())
    return found


@pytest.mark.parametrize("task", get_args(TaskName))
def test_a_task_is_named_in_tables_and_in_its_own_files_alone(task: str) -> None:
    places = {file for file in naming()[task] if file in TABLES or not file.startswith(OWN)}
    assert places <= {*TABLES, *HEADS, *OTHERS}


@pytest.mark.parametrize("table", [SYSTEMS["albef"].tasks, ROWS, TOLD])
def test_no_task_is_missing(table: dict[str, object]) -> None:
    assert set(table) == set(get_args(TaskName))


def test_what_can_be_measured_are_the_tasks_and_classes() -> None:
    assert set(MEASURED) == set(TO_MEASURE)
    assert (*get_args(TaskName), "classes") == TO_MEASURE


def test_verbs_are_of_tasks_or_of_matching() -> None:
    assert set(VERBS) <= {*get_args(TaskName), "match"}


def test_the_page_for_contributors_lists_the_tables() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    for file, table in TABLES.items():
        assert f"`{table}` in `{file}`" in page
    assert page.count("` in `") == len(TABLES)
