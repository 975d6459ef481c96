"""Every idea has a room: files and functions that can be read at once, and no two modules that need each other."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "albef"
SOURCES = sorted(PACKAGE.rglob("*.py"))
LONGEST_FILE, LONGEST_FUNCTION = 400, 60  # lines


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path): path for path in SOURCES}


def needs(path: Path) -> set[str]:
    """The modules that must be imported before this one."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:  # what is imported inside functions comes later
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & set(MODULES) or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(MODULES)


def too_long(path: Path) -> list[str]:
    """What of a file cannot be read at once."""
    text = path.read_text("utf-8")
    found = [path.name] if len(text.splitlines()) > LONGEST_FILE else []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            lines = node.end_lineno - node.lineno + 1
            found += [f"{node.name} ({lines})"] if lines > LONGEST_FUNCTION else []
    return found


def test_no_circles() -> None:
    try:
        list(TopologicalSorter({name: needs(path) for name, path in MODULES.items()}).static_order())
    except CycleError as error:
        pytest.fail(" needs ".join(error.args[1]))


def test_a_circle_would_be_found() -> None:
    with pytest.raises(CycleError):
        list(TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order())
    assert "albef.model.kernels" in needs(PACKAGE / "model" / "heads.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_are_short(path: Path) -> None:
    assert not too_long(path)


def test_what_is_too_long_is_found(tmp_path: Path) -> None:
    file = tmp_path / "long.py"
    file.write_text("def whole():\n" + "    x = 1\n" * 60 + "\n" * 340)
    assert too_long(file) == ["long.py", "whole (61)"]
