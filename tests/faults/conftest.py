"""An undisturbed toy training to compare with."""

from pathlib import Path

import faulty
import pytest


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    faulty.finish(folder)
    assert len(faulty.losses(folder)) == faulty.STEPS
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The counts."""
    terminalreporter.section("faults injected")
    for line in faulty.TOLD:
        terminalreporter.write_line(line)
