"""Every command, setting and make target that a page or a recipe writes is one that there is."""

import argparse
import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from albef.cli import build_parser, training
from albef.cli.arguments import leaves
from albef.config import UserError
from albef.recipe import check_key, load_recipe

ROOT = Path(__file__).parent.parent.parent
PAGES = [page for page in sorted(ROOT.glob("*.md")) if page.name != "CHANGELOG.md"]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
ANY_RECIPE = ROOT / "recipes" / "own-data.yaml"
ALBEF = re.compile(r"(?:^(?:\.venv/bin/)?|-m )albef (?=[a-z-])(.*)", re.DOTALL)
PLACEHOLDER = r"…|[A-Z][A-Z_]+"  # RUN_OR_MODEL, …
FILES = (".safetensors", ".json", ".yaml", ".py", ".md", ".txt")
OF_TORCHRUN = {"--max-restarts", "--monitor-interval", "--nproc-per-node", "--shutdown-timeout"}


class Written(NamedTuple):
    """A piece of code: a line of a block, or a span within a sentence, which may leave out what is beside the point."""

    code: str
    whole: bool


def code_of(text: str) -> Iterator[Written]:
    """The code of a page, but for blocks of Python and of what a command says (`text`)."""
    fence = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
    for language, block in fence.findall(text):
        if language not in ("python", "text"):
            for line in block.replace("\\\n", " ").splitlines():
                # What follows explains, or is another program's.
                yield Written(re.split(r"\s+#|\s{3,}|\s\|\s", line.strip())[0], True)
    for span in re.findall(r"`([^`]+)`", fence.sub("", text)):
        yield Written(span, False)


def wrong_with(written: Written) -> str | None:
    """What is wrong with a command `albef …`, a `make` target, an option or a setting; None: nothing, or it is none."""
    if command := ALBEF.search(written.code):
        # In a sentence brackets stand round what may be left out; in a block they are the shell's.
        words = shlex.split(command[1] if written.whole else re.sub(r"[][]", " ", command[1]))
        pairs = zip(["", *words], words, strict=False)  # "…" may stand for a value, or for more words
        return wrong_command(
            [word for before, word in pairs if word != "…" or re.fullmatch("-[^=]+", before)], written.whole
        )
    if target := re.match(r"make ([a-z][\w-]*)", written.code):
        known = re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return None if target[1] in known else f"the Makefile has no {target[1]}"
    if option := re.match(r"(--?[a-z][\w-]*)(?=[ =]|$)", written.code):
        return None if option[1] in options() | OF_TORCHRUN else f"no command has {option[1]}"
    setting = re.match(r"(?:--)?((?:model|data|task|train|evaluate)\.[a-z]\w*)(?=[ :=]|$)", written.code)
    if setting and not setting[1].endswith(FILES):
        with contextlib.suppress(UserError):
            return check_key(setting[1], "page")
        return f"there is no setting {setting[1]}"
    return None


def wrong_command(words: list[str], whole: bool) -> str | None:
    """What the parser or the recipe says against the words after `albef`."""
    words = [word for word in words if word != "--section.key=value"]
    for _ in range(9):
        message, settings = parsed(words)
        missing = re.search(r"arguments are required: (.*)|one of the arguments (\S+) ", message)
        chosen = re.search(rf"invalid choice: '({PLACEHOLDER})' \(choose from '?([\w.-]+)", message)
        if missing and not whole:
            for name in (missing[1] or missing[2]).split(", "):
                choice = re.match(r"\{?([\w.-]+)", name)
                words += [name, "X"] if name.startswith("-") else [choice[1] if choice else "X"]
        elif chosen:
            words = [chosen[2] if word == chosen[1] else word for word in words]
        else:
            break
    if message:
        return message
    for setting in settings:
        key, _, value = setting.partition("=")
        try:
            if re.fullmatch(PLACEHOLDER, value):
                check_key(key.removeprefix("--"), "page")
            else:
                load_recipe(ANY_RECIPE, [setting])
        except UserError as error:
            return str(error)
    recipes = [word for word in words if word.startswith("recipes/") and not re.search(PLACEHOLDER, word)]
    return next((f"{one}: no such recipe" for one in recipes if not (ROOT / one).is_file()), None)


def parsed(words: list[str]) -> tuple[str, list[str]]:
    """What the parser says against the words, and the settings among them."""
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        try:
            given, settings = build_parser().parse_known_args(words)
        except SystemExit as stop:
            return (" ".join(told.getvalue().split()) or "help") if stop.code else "", []
    if settings and given.command not in training.TAKE_SETTINGS:
        return f"unknown argument: {settings[0]}", []
    return "", settings


def options() -> set[str]:
    """Every option of every command and script."""
    scripts = [
        path.read_text("utf-8")
        for folder in ("scripts", "benchmarks")
        for path in (ROOT / folder).glob("*.py")
    ]
    found = set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', " ".join(scripts)))
    parsers = [build_parser()]
    while parsers:
        for action in parsers.pop()._actions:
            found |= set(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                parsers += list(action.choices.values())
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_what_a_page_tells_to_type_is_understood(page: Path) -> None:
    wrong = [(one.code, said) for one in code_of(page.read_text("utf-8")) if (said := wrong_with(one))]
    assert wrong == []


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_what_a_recipe_tells_to_type_is_understood(recipe: Path) -> None:
    lines = [line.lstrip("# ") for line in recipe.read_text("utf-8").splitlines() if line.startswith("#")]
    parts = [part for line in lines for part in re.split(r"\s{3,}", line)[0].split("; ")]
    commands = [Written(part, True) for part in parts if re.match("(albef|torchrun|make) ", part)]
    assert commands
    assert [said for one in commands if (said := wrong_with(one))] == []


def test_the_examples_in_help_are_understood() -> None:
    parsers = [build_parser(), *leaves(build_parser())]
    lines = [line.strip() for parser in parsers for line in (parser.epilog or "").splitlines()]
    examples = [Written(line, True) for line in lines if line.startswith("albef ")]
    assert len(examples) > len(parsers)
    assert [said for one in examples if (said := wrong_with(one))] == []


def test_the_pages_do_hold_commands() -> None:
    found = [one for page in PAGES for one in code_of(page.read_text("utf-8")) if ALBEF.search(one.code)]
    assert sum(one.whole for one in found) > 30
    assert sum(not one.whole for one in found) > 20
    readme = (ROOT / "README.md").read_text("utf-8")
    assert {"make quickstart", "make test"} <= {one.code for one in code_of(readme)}


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ("```\nalbef train recipes/quickstart.yaml --no-such-flag\n```", "--no-such-flag"),
        ("```\n.venv/bin/albef evaluate RUN --no-such-flag   explained\n```", "--no-such-flag"),
        ("```bash\nalbef evaluate \\\n  --split test\n```", "required: RUN_OR_MODEL"),
        ("```\ntorchrun --nproc-per-node=8 -m albef tarin RECIPE.yaml  # for 8\n```", "tarin"),
        ("```\nalbef search pictures.idx fox -k many\n```", "not a whole number"),
        ("```\nalbef train recipes/nowhere.yaml\n```", "no such recipe"),
        ("see `albef train RECIPE --train.no_such=3`", "unknown setting train.no_such"),
        ("see `albef train RECIPE --train.steps=soon`", "steps"),
        ("see `albef train RECIPE --train.no_such=…`", "unknown setting"),
        ("see `albef evaluate --no-such-flag`", "--no-such-flag"),
        ("see `albef export --no-such-flag`", "--no-such-flag"),
        ("```\nalbef export runs/a\n```", "--official"),
        ("see `albef evaluate [--no-such-flag] …`", "--no-such-flag"),
        ("see `albef predict TASK\nMODEL --no-such-flag`", "--no-such-flag"),
        ("see `albef evaluate RUN --train.steps=3`", "--train.steps=3"),
        ("see `albef no-such-command`", "no-such-command"),
        ("see `--no-such-flag`", "--no-such-flag"),
        ("see `train.no_such`", "train.no_such"),
        ("see `data.no_such: 3`", "data.no_such"),
        ("see `make no-such`", "no no-such"),
        ("```\nmake no-such  # really\n```", "no no-such"),
    ],
)
def test_a_slip_in_a_page_is_noticed(page: str, said: str) -> None:
    (wrong,) = [found for one in code_of(page) if (found := wrong_with(one))]
    assert said in wrong


@pytest.mark.parametrize(
    "page",
    [
        '```\nalbef predict TASK MODEL a.jpg "a fox"      explained --at length\n```',
        "see `albef train`, `albef evaluate --split test`, `albef data prepare`, `albef train RECIPE --train.lr=…`",
        "`albef evaluate RUN_OR_MODEL [--data …] [--task …] [--json FILE]`, `--json`, `train.steps: 3`",
        "`model.safetensors`, `data.json`, `--train.steps=3`, `albef --version`, `the albef package`",
        "```python\nalbef no-such\n```",
        '```\nalbef search pictures.idx "a fox" --paths0 | xargs -0 ls -l\n```',
        "```\nalbef train recipes/own-data.yaml '--data.crop_scale=[1, 1]'\n```",
    ],
)
def test_what_may_be_written_is(page: str) -> None:
    assert [found for one in code_of(page) if (found := wrong_with(one))] == []
