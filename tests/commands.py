"""How commands end in tests."""

from __future__ import annotations

import pytest

from albef.cli import main


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one sentence that a command ends with."""
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("albef: ")
    assert said.count("\n") == 1
    return said
