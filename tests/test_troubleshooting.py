"""The messages that docs/troubleshooting.md quotes are messages that albef gives."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text("utf-8")
QUOTED = re.findall(r"^```text\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def text_of(node: ast.expr) -> str:
    """A text with … for what is filled in, as the page writes it."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(text_of(part) for part in node.values)
    return "…"


TEXTS = [
    text_of(node)
    for file in sorted((ROOT / "src" / "albef").rglob("*.py"))
    for node in ast.walk(ast.parse(file.read_text("utf-8")))
    if isinstance(node, ast.Constant | ast.JoinedStr)
]


def is_given(line: str) -> bool:
    """Whether one text of the sources has all pieces of a quoted message, in their order."""
    pieces = [re.escape(piece.strip()) for piece in line.split("…") if len(piece.strip()) > 2]
    return any(re.search(".*".join(pieces), text, re.DOTALL) for text in TEXTS)


def test_every_quoted_message_is_one_that_there_is() -> None:
    lines = [line for block in QUOTED for line in block.splitlines()]
    assert len(lines) > 10
    assert [line for line in lines if not is_given(line)] == []


def test_a_message_that_nobody_gives_is_noticed() -> None:
    assert not is_given("…: this index is made of cheese; …")
