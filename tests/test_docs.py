"""README and docs: links lead somewhere, sentences are short, README is short, words and brackets mean one thing.

That commands can be typed is tested in cli/test_written_commands.py, that Python blocks run in end_to_end/test_pages.py.
"""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from albef.cli import build_parser
from albef.cli.arguments import leaves
from albef.cli.settings import settings

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
OTHERS = ("BENCHMARKS.md", "CONTRIBUTING.md", "SECURITY.md")
PAGES = [README, *(ROOT / name for name in OTHERS), *sorted((ROOT / "docs").rglob("*.md"))]
MOST_LINES, MOST_WORDS = 150, 30  # lines of README; words of a sentence
SECTIONS = (
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
FENCED = re.compile(r"^ *```.*?^ *```[^\n]*$", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
CODE = re.compile(r"(`+)(.+?)\1", re.DOTALL)
LINK = re.compile(r"\[((?:[^][]|\[[^]]*\])*)\]\(([^()\s]+)\)")
TARGET = re.compile(r"\]\(([^()\s]+)(?: \"[^\"]*\")?\)|(?:href|src)=\"([^\"]+)\"")
RESULTS = re.compile(r"<!-- results: begin.*?<!-- results: end -->", re.DOTALL)
ABBREVIATIONS = ("al", "e.g", "i.e", "vs", "etc")


def without_code(text: str) -> str:
    """The text of a page without blocks and spans of code, and without comments."""
    return CODE.sub("", COMMENT.sub("", FENCED.sub("", text)))


def anchors(text: str) -> set[str]:
    """What links to a page may name behind #: its headings, as GitHub makes anchors of them."""
    found: Counter[str] = Counter()
    names = set(re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#{1,6} +(.*?)[ #]*$", FENCED.sub("", text), re.MULTILINE):
        shown = LINK.sub(r"\1", heading).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", shown).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if found[slug] else slug)
        found[slug] += 1
    return names


def dead_links(page: Path, text: str) -> list[str]:
    """The relative links of a page that name no file, or no heading of the file."""
    code_free = without_code(text)
    dead = []
    for link in map("".join, TARGET.findall(code_free)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        file = page.parent / name if name else page
        named = (
            text
            if file == page
            else file.read_text("utf-8")
            if file.suffix == ".md" and file.is_file()
            else ""
        )
        if not file.exists() or (anchor and anchor not in anchors(named)):
            dead.append(link)
    return dead


def passages(text: str) -> Iterator[str]:
    """What is read in one go: paragraphs, list items, headings and cells of tables, without blocks of code."""
    lines: list[str] = []
    for line in [*COMMENT.sub("", FENCED.sub("\n", text)).splitlines(), ""]:
        begins = re.match(r" *(?:#+|[-*]|\d+\.) +", line)
        if lines and (not line.strip() or begins or line.startswith("|")):
            yield " ".join(lines)
            lines = []
        if line.startswith("|"):
            yield from re.split(r"(?<!\\)\|", line.strip("|"))
        elif line.strip():
            lines.append(line[begins.end() :] if begins else line.strip())
            if line.startswith("#"):
                yield lines.pop()


def sentences(text: str) -> Iterator[str]:
    """The sentences of a page. Of a link its text is read, of a span of code every word."""
    for passage in passages(text):
        start = 0
        for end in re.finditer(r"[.!?][*_)\"”]*\s+(?=[*_(\"“]*[A-Z0-9`[])", passage):
            before = passage[: end.start()].split()[-1:]
            if before and before[0].lstrip('("*_') in ABBREVIATIONS:
                continue
            yield LINK.sub(r"\1", passage[start : end.end()]).strip()
            start = end.end()
        yield LINK.sub(r"\1", passage[start:]).strip()


def words(sentence: str) -> int:
    """The number of words; a dash by itself is none."""
    return sum(any(letter.isalnum() for letter in word) for word in sentence.split())


def says_picture(text: str) -> list[str]:
    """Where a page says picture instead of image; names of files, folders and HTML's element may."""
    prose = re.sub(r"<[^<>]*>", "", LINK.sub(r"\1", without_code(text)))
    return [
        word for word in prose.split() if re.search(r"pictures?\b", word, re.IGNORECASE) and "/" not in word
    ]


def figures_with_brackets(text: str) -> list[str]:
    """Figures followed by brackets with numbers, which only results may have: there they are 95 % intervals."""
    return re.findall(r"\d[\d.,]* ?%? ?[(\[]\d[^)\]]*[)\]]", without_code(RESULTS.sub("", text)))


def test_readme_has_its_sections_in_order() -> None:
    text = README.read_text("utf-8")
    assert tuple(re.findall(r"^## (.*)$", FENCED.sub("", text), re.MULTILINE)) == SECTIONS
    assert RESULTS.search(text), "make results fills this place"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_name_files_and_headings(page: Path) -> None:
    assert dead_links(page, page.read_text("utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pages_say_image(page: Path) -> None:
    assert says_picture(page.read_text("utf-8")) == []


def test_help_says_image() -> None:
    texts = [parser.format_help() for parser in [build_parser(), *leaves(build_parser())]]
    texts += [one.meaning for ones in settings().values() for one in ones]
    assert [found for text in texts for found in says_picture(text)] == []


def test_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_sentences_are_short(page: Path) -> None:
    found = list(sentences(page.read_text("utf-8")))
    assert [one for one in found if words(one) > MOST_WORDS] == []
    assert len(found) > 10


def test_brackets_after_figures_are_intervals() -> None:
    assert figures_with_brackets(README.read_text("utf-8")) == []


BROKEN_LINKS = {
    "[a](no-such.md)": "no-such.md",
    "[a](docs/python.md#no-such)": "docs/python.md#no-such",
    "## There is one\n[a](#there-is-none)": "#there-is-none",
    "```\n## In code\n```\n[a](#in-code)": "#in-code",
    "[`code`](no-such.md)": "no-such.md",
    '<img src="no-such.png">': "no-such.png",
    "[![badge](no-such.png)](README.md)": "no-such.png",
    "[src](src/albef/no_such.py)": "src/albef/no_such.py",
}


@pytest.mark.parametrize("text", BROKEN_LINKS)
def test_a_broken_link_is_noticed(text: str) -> None:
    assert dead_links(README, text) == [BROKEN_LINKS[text]]


@pytest.mark.parametrize(
    "text",
    [
        "[a](docs/python.md) [b](docs) [c](https://example.com/none) `[d](none.md)`",
        "## What is `R@1`, and why?\n[a](#what-is-r1-and-why)",
        "## `albef data export`\n[a](#albef-data-export)",
        "## Twice\n## Twice\n[a](#twice) [b](#twice-1)",
        "## [A link](docs/python.md): 95 % of_it\n[a](#a-link-95--of_it)",
        "```\n[a](none.md)\n```",
    ],
)
def test_a_sound_link_is_left_alone(text: str) -> None:
    assert dead_links(README, text) == []


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("One two. Three four five!\nSix.", [2, 3, 1]),
        ("One two\nthree.\n\nFour", [3, 1]),
        ("Old. [new](docs/python.md) one. [Li](a.md) et al.", [1, 2, 3]),
        ("Li et al. 2021 wrote v1.5 of it, e.g. this.", [10]),
        ("- one two.\n- three\n1. four five", [2, 1, 2]),
        ("| one two | three |\n|---|---|\n| four. Five | six \\| seven |", [2, 1, 0, 0, 1, 1, 2]),
        ("# A heading\nSee [the page](docs/python.md) – now.", [2, 4]),
        ("Type `albef train RECIPE`. `make test` is next.", [4, 4]),
        ("Before\n```\nnot. Counted\n```\nafter <!-- nor. This -->", [1, 1]),
        ('**Bold.** (A note.) And "quoted." End', [1, 2, 2, 1]),
        (" ".join(["word"] * 31), [31]),
    ],
)
def test_sentences_are_told_apart(text: str, lengths: list[int]) -> None:
    assert [words(one) for one in sentences(text)] == lengths


@pytest.mark.parametrize("text", ["Some pictures.", "# Picture", "[a picture](a.md)", "| picture-wise |"])
def test_the_other_word_is_noticed(text: str) -> None:
    assert len(says_picture(text)) == 1


@pytest.mark.parametrize("text", ["`picture.jpg`", "~/Pictures", "pictograms", "[a](pictures.md)"])
def test_the_other_word_may_be_a_name(text: str) -> None:
    assert says_picture(text) == []


RESULT = "<!-- results: begin (made) -->\n| 59.0 (57–61) |\n<!-- results: end -->\n"


@pytest.mark.parametrize("figure", ["59.0 (57.2–61.2)", "24.7 % (24–26)", "62.9 (26.6)", "3 [2, 4]"])
def test_a_figure_with_brackets_is_noticed(figure: str) -> None:
    assert len(figures_with_brackets(f"{RESULT}It is {figure}.")) == 1


def test_results_and_plain_brackets_are_left_alone() -> None:
    text = "11 minutes (14 with installation), [Li 2021](https://a.b/2107), `x[3] 5 (6)`"
    assert figures_with_brackets(RESULT + "in 6 minutes (AVX-512), ALBEF (2021)") == []
    assert figures_with_brackets(text.replace("11 minutes (14", "11 minutes (about 14")) == []
