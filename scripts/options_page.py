"""docs/options.md: every option of every command and every setting of a recipe, from the parser and config.py.

`make options` writes it; a test fails while it is out of date.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from albef.cli import build_parser
from albef.cli.arguments import leaves, meaning_of
from albef.cli.settings import Setting, settings, short_kind, shown

PAGE = Path(__file__).resolve().parent.parent / "docs" / "options.md"
DEFAULT = re.compile(r" \(default: (.*)\)$")
DEFAULT_WITHIN = re.compile(r" \(default: ([^)]*)\)")
OF_ALL = ("--help", "--traceback")
USUAL_GROUPS = ("positional arguments", "options")
ABOUT_SECTIONS = {
    "model": "Widths, depths and inputs of the model. The defaults here are those of size base.",
    "data": "Where images and texts come from, and how training changes them.",
    "task": "What the model learns: the losses, the teacher and the queue.",
    "train": "How it learns: initial weights, optimizer, schedule, device, log and checkpoints.",
    "evaluate": "What is measured at the end of the training.",
}
HEAD = """# Options and settings

You need this page when you want to know what an option of a command or a setting of a recipe does.
In a terminal, `albef COMMAND --help` and `albef settings` say the same. `make options` writes this page from the code.

## Commands

| command | what it does |
|---|---|
{commands}

The [settings of a recipe](#settings-of-a-recipe) are below. Every command has these options:

{common}
"""
SETTINGS = """
## Settings of a recipe

A recipe is a YAML file with sections and settings. A setting that it leaves out has its default:
```yaml
model:
  size: small
train:
  steps: 500
```
On the command line, `--section.key=value` changes a setting: `--train.steps=500`.
"Published" is what the code that was published with the paper does ([where albef differs](published.md)).

| section | about |
|---|---|
{sections}
"""


def page() -> str:
    """The whole page."""
    parsers, found = list(leaves(build_parser())), settings()
    head = HEAD.format(
        commands="\n".join(row(link(parser.prog), first_sentence(parser)) for parser in parsers),
        common=table(action for action in parsers[0]._actions if is_common(action)),
    )
    commands = (about(parser) for parser in parsers)
    sections = (about_section(section, ones) for section, ones in found.items())
    names = "\n".join(row(link(section), ABOUT_SECTIONS[section]) for section in found)
    return "".join([head, *commands, SETTINGS.format(sections=names), *sections])


def first_sentence(parser: argparse.ArgumentParser) -> str:
    """What a command does, in one sentence."""
    return (parser.description or "").partition(". ")[0].rstrip(".") + "."


def about(parser: argparse.ArgumentParser) -> str:
    """The part of a command: what it does, examples, and its arguments."""
    description, *_ = (parser.description or "").splitlines()
    _, *examples = (parser.epilog or "").splitlines()
    lines = "\n".join(line.strip() for line in examples)
    arguments = table(action for action in parser._actions if not is_common(action))
    return f"\n### `{parser.prog}`\n{linked(description)}\n```\n{lines}\n```\n\n{arguments}\n"


def about_section(section: str, ones: list[Setting]) -> str:
    """The part of a section of a recipe: its settings."""
    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for one in ones:
        meaning, default = parted(one.meaning, DEFAULT_WITHIN)
        default = default or f"`{shown(one.default)}`"
        lines.append(row(f"`{section}.{one.name}`", short_kind(one.kind), default, meaning))
    return f"\n### `{section}`\n{ABOUT_SECTIONS[section]}\n\n" + "\n".join(lines) + "\n"


def is_common(action: argparse.Action) -> bool:
    """Whether every command has this option."""
    return any(name in OF_ALL for name in action.option_strings)


def table(actions: Iterator[argparse.Action]) -> str:
    """The table of some arguments."""
    lines = ["| argument | default | meaning |", "|---|---|---|"]
    for action in actions:
        meaning, default = parted(meaning_of(action), DEFAULT)
        needed = action.required or (not action.option_strings and action.nargs != "?")
        default = default or ("required" if needed else "none")
        if (group := action.container.title) not in USUAL_GROUPS:  # type: ignore[attr-defined]
            meaning = f"{group}: {meaning}"
        lines.append(row(written(action), default, meaning))
    return "\n".join(lines)


def written(action: argparse.Action) -> str:
    """An argument as it is typed."""
    values = "" if action.nargs == 0 else action.metavar or ""
    if action.nargs == "+":
        values = f"{values} …"
    names = [f"`{name} {values}`" if values else f"`{name}`" for name in action.option_strings]
    return ", ".join(names) or f"`{values}`"


def parted(text: str, default: re.Pattern[str]) -> tuple[str, str]:
    """A meaning without its default, and the default; empty if the meaning does not say it."""
    found = default.search(text)
    return default.sub("", text), found[1] if found else ""


def row(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(linked(cell.replace("|", "\\|")) for cell in cells) + " |"


def linked(text: str) -> str:
    """The text with links to the pages that it names."""
    return re.sub(r"docs/([\w-]+\.md)", r"[\1](\1)", text)


def link(heading: str) -> str:
    """A link to a heading of this page."""
    return f"[`{heading}`](#{heading.replace(' ', '-')})"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(f"Written: {PAGE}")
