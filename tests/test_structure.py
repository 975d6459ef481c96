"""What keeps the house in order: imports run one way, every setting is read, every recipe loads."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from albef.config import OFFICIAL, SIZES, Config
from albef.recipe import load_recipe
from settings_read import settings_read

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "albef"
LAYERS = [
    {"cli", "__main__"},
    {"run", "serve"},
    {"report", "search"},
    {"evaluation"},
    {"train", "exchange"},
    {"engine"},
    {"systems"},
    {"peers"},
    {"tasks", "model_directory"},
    {"model", "data", "momentum"},
    {
        "objectives",
        "config",
        "model_config",
        "distributed",
        "gpu",
        "recipe",
        "progress",
        "manifest",
        "ranker",
        "lock",
        "writing",
        "disk",
    },
    {"setting_checks", "setting_values", "agreement", "sizes", "children"},
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
    # To check a setting is not yet to do something with it.
    checking = {"config.py", "model_config.py", "agreement.py", "setting_checks.py"}
    read = settings_read(path.read_text("utf-8") for path in SOURCES if path.name not in checking)
    sections = [section.default_factory for section in dataclasses.fields(Config)]
    settings = {(kind.__name__, setting.name) for kind in sections for setting in dataclasses.fields(kind)}
    assert settings - read == set()


@pytest.mark.parametrize(
    "source",
    [
        "def f(config: Config): return config.data.flip",
        "def f(data: DataConfig): return data.flip",
        "def f(given: Config | None): return (given or Config()).data.flip",
        "def f(config: Config):\n    task, data = config.task, config.data\n    return lambda: data.flip",
        "def f(config: Config):\n    data = dataclasses.replace(config.data, count=3)\n    return data.flip",
        "def f(path): return load(path).data.flip\ndef load(path) -> Config: ...",
        "def f(path):\n    config, heads = load(path)\n    config.flip\ndef load(path) -> tuple[DataConfig, list]: ...",
        "class A:\n    def __init__(self, own: Config): self.own = own\n    def f(self): return self.own.data.flip",
        "class A:\n    own: DataConfig\ndef f(a: A): return a.own.flip",
        "def f(parsed): return parsed['data'].flip",
        "def f(config: Config):\n    if (data := config.data) and data.flip: ...",
    ],
)
def test_a_setting_that_is_read_is_noticed(source: str) -> None:
    assert ("DataConfig", "flip") in settings_read([source])


@pytest.mark.parametrize(
    "source",
    [
        '"""What data.flip does, config.data.flip."""',
        "import cv2\ndef f(image, data): return cv2.flip(image, 1)",
        "def f(config: Config): return config.flip, config.task.flip, config.data.flips",
        "def f(data: np.ndarray): return data.flip",
        "def f(config: Config): config.data.flip = True  # config.data.flip",
        "def f(config: Config):\n    def g(config: Image): return config.data.flip",
        "def f(data: DataConfig): ...\ndef g(data): return data.flip",
    ],
)
def test_what_only_looks_like_a_setting_is_not(source: str) -> None:
    assert not {one for one in settings_read([source]) if one == ("DataConfig", "flip")}


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
