"""What keeps the house in order: imports run one way, every setting is read, every recipe loads."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from albef.config import OFFICIAL, SIZES, Config
from albef.recipe import load_recipe

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "albef"
LAYERS = [
    {"cli", "__main__"},
    {"run", "serve"},
    {"report", "search"},
    {"evaluation"},
    {"train", "exchange"},
    {"engine", "peers"},
    {"tasks", "model_directory"},
    {"model", "data", "momentum"},
    {"objectives", "config", "distributed", "recipe", "progress", "manifest", "ranker", "lock", "writing"},
    {"setting_checks", "setting_values", "agreement"},
    {"errors"},
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
SOURCES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def part_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("albef"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
    return found & set(LEVEL)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    own = LEVEL[part_of(path)]
    backwards = {name for name in imports(path) if LEVEL[name] < own}
    assert not backwards, f"{path.name} imports {backwards} from above"


@pytest.mark.parametrize("path", ["evaluation/metrics.py", "ranker.py"])
def test_metrics_and_the_ranker_need_numpy_alone(path: str) -> None:
    tree = ast.parse((PACKAGE / path).read_text())
    modules = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    modules |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
    assert modules <= {"numpy", "collections.abc", "pathlib", "typing", "__future__"}


def test_every_setting_is_read_somewhere() -> None:
    text = "\n".join(path.read_text() for path in SOURCES if path.name != "config.py")
    for section in dataclasses.fields(Config):
        for setting in dataclasses.fields(section.default_factory()):
            assert re.search(rf"\.{setting.name}\b", text), f"nobody reads {section.name}.{setting.name}"


@pytest.mark.parametrize("path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_is_short(path: Path) -> None:
    config = load_recipe(path)
    assert config.model.size in SIZES
    lines = path.read_text().splitlines()
    assert len(lines) <= 40
    assert lines[0].startswith("#"), "the first lines say command, hardware, hours and expected number"


def test_official_settings_exist() -> None:
    for key in OFFICIAL:
        section, name = key.split(".")
        assert hasattr(getattr(Config(), section), name)


def test_every_quirk_that_the_sources_name_is_described() -> None:
    page = (ROOT / "docs" / "published.md").read_text("utf-8")
    named = {name for path in SOURCES for name in re.findall(r"\bQ\d+\b", path.read_text("utf-8"))}
    assert named
    assert named <= set(re.findall(r"^\| (Q\d+) \|", page, re.MULTILINE))
    for key in OFFICIAL:
        assert key in page, f"docs/published.md doesn't say what {key} brings back"


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.md")) + sorted((ROOT / "docs").rglob("*.md")))
def test_links_between_pages_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text("utf-8")):
        assert "://" in link or (path.parent / link).exists(), f"{path.name}: {link}"
