"""The page of options is what the parser and the settings say now."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))
from options_page import PAGE, page  # noqa: E402

from albef.cli import build_parser  # noqa: E402
from albef.cli.arguments import leaves  # noqa: E402
from albef.recipe import KINDS  # noqa: E402


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), "run make options"


def test_every_option_and_setting_is_on_the_page() -> None:
    text = PAGE.read_text("utf-8")
    for parser in leaves(build_parser()):
        part = text.split(f"### `{parser.prog}`\n")[1].partition("\n### ")[0]
        for option in (name for action in parser._actions for name in action.option_strings):
            assert re.search(
                rf"`{option}[ `]", part if option not in ("-h", "--help", "--traceback") else text
            )
    rows = set(re.findall(r"^\| `([a-z]+\.\w+)` \|", text, re.MULTILINE))
    assert rows == {f"{section}.{name}" for section, names in KINDS.items() for name in names}
