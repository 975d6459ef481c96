"""What a user sees of an unexpected error: one sentence, and the file with the traceback."""

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
    """The sentence to print. The traceback goes to `FILE` beside the output, else to the temporary folder."""
    lines = str(error).splitlines()
    what = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    at = f" albef was reading {reading.get()}." if reading.get() else ""
    return (
        f"unexpected error ({what}).{at} This is a fault of albef: please report it. "
        f"{kept(error, command, output)} To see the traceback here, add --traceback."
    )


def kept(error: BaseException, command: Sequence[str], output: Path | None) -> str:
    """Writes command, versions and traceback to a file; returns a sentence that names it."""
    text = "\n".join(["albef " + " ".join(command), versions_line(), *traceback.format_exception(error)])
    try:
        return f"Add this file to the report: {written(text, output)}."
    except OSError as refused:
        print(text, file=sys.stderr)
        return f"Add the text above to the report (no file could be written: {refused})."


def written(text: str, output: Path | None) -> Path:
    """Writes the text; returns the file."""
    if output is not None:
        folder = output if output.is_dir() else output.parent
        try:
            (folder / FILE).write_text(text, "utf-8", errors="backslashreplace")
            return folder / FILE
        except OSError:
            pass  # the output may be the problem
    with tempfile.NamedTemporaryFile(
        "w", prefix="albef-error-", suffix=".txt", delete=False, encoding="utf-8", errors="backslashreplace"
    ) as file:
        file.write(text)
    return Path(file.name)
