"""What a user is told of an error that nobody foresaw: one sentence, and where the traceback is."""

from __future__ import annotations

import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

from albef.cli.versions import versions_line
from albef.errors import reading

FILE = "albef-error.txt"


def sentence(error: BaseException, command: Sequence[str], output: Path | None) -> str:
    """The sentence to print; the traceback is in `FILE` beside the output, else in the temporary folder."""
    lines = str(error).splitlines()
    what = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    at = f" The file that was being read is {reading.get()}." if reading.get() else ""
    return (
        f"albef has failed with an error that should not happen ({what}).{at} {kept(error, command, output)}"
        " Please report it. --traceback shows it here."
    )


def kept(error: BaseException, command: Sequence[str], output: Path | None) -> str:
    """Writes command, versions and traceback into a file; a sentence that says which."""
    text = "\n".join(["albef " + " ".join(command), versions_line(), *traceback.format_exception(error)])
    try:
        return f"What is needed to find the cause is in {written(text, output)}."
    except OSError as refused:
        print(text, file=sys.stderr)
        return f"What is needed to find the cause stands above, since no file could be written ({refused})."


def written(text: str, output: Path | None) -> Path:
    """The file that the text is written to."""
    if output is not None:
        folder = output if output.is_dir() else output.parent
        try:
            (folder / FILE).write_text(text, "utf-8", errors="backslashreplace")
            return folder / FILE
        except OSError:
            pass  # the output may be what is wrong
    with tempfile.NamedTemporaryFile(
        "w", prefix="albef-error-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(text)
    return Path(file.name)
