"""Folders that are written and read back by tests."""

from pathlib import Path

from albef.writing import whole_folder

NO_EXCHANGE = 1 << 20  # a flag that no system knows


def tree(folder: Path) -> dict[str, str]:
    """What the files below a folder hold, by their paths."""
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def fill(folder: Path, text: str) -> None:
    """Writes a folder of two files as the package writes folders."""
    with whole_folder(folder, ["a", "b"]) as temporary:
        (temporary / "a").write_text(text)
        (temporary / "b").write_text(text)
