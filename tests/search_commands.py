"""`albef index` and `albef search` in tests: what they print, and how they refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from albef.cli import main


def found(home: Path, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[str], str]:
    """The paths that a search prints, sorted, and what it says beside them."""
    main(["search", str(home / "idx"), "a fox", "--paths", *arguments])
    shown = capsys.readouterr()
    return sorted(shown.out.splitlines()), shown.err
