"""README keeps what a newcomer needs: short, in one order, in short sentences."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parent.parent / "README.md").read_text("utf-8")
ORDER = (
    "What it is not yet",
    "Install",
    "See it work",
    "Search your images",
    "Train on your own pairs",
    "From Python",
    "Tasks",
    "Results",
    "How does it compare?",
    "Where to go next",
)
MOST_LINES, MOST_WORDS = 150, 30


def sentences(page: str) -> list[str]:
    """The sentences of the prose of a page: without code blocks, tables and the addresses of links."""
    page = re.sub(r"^```.*?^```|^\|.*?$|^#.*?$|<!--.*?-->", "\n\n", page, flags=re.MULTILINE | re.DOTALL)
    page = re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", page)
    blocks = re.split(r"\n\s*\n|\n(?=- )", page)
    return [one for block in blocks for one in re.split(r"(?<=[.:;?!])\s+", " ".join(block.split())) if one]


def test_it_is_short_and_in_order() -> None:
    assert len(README.splitlines()) <= MOST_LINES
    assert tuple(re.findall(r"^## (.*)$", README, re.MULTILINE)) == ORDER


def test_no_sentence_is_long() -> None:
    assert [one for one in sentences(README) if len(one.split()) > MOST_WORDS] == []


def test_the_results_have_their_place() -> None:
    begin, end = README.index("<!-- results: begin"), README.index("<!-- results: end -->")
    assert "ITC + ITM" in README[begin:end]


@pytest.mark.parametrize(
    ("page", "longest"),
    [("One two. Three four five.", 3), ("```\na b c d\n```\none\n\n| a | b | c |", 1), ("[a b](c d e).", 2)],
)
def test_sentences_are_counted_without_code_tables_and_addresses(page: str, longest: int) -> None:
    assert max(len(one.split()) for one in sentences(page)) == longest
