"""A place for files of full size."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for some gigabytes, which are not kept."""
    yield tmp_path
    shutil.rmtree(tmp_path)
