"""The sources call nothing that lets a file run code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path for folder in ("src", "scripts", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
FORBIDDEN = {
    "eval",
    "exec",
    "pickle.load",
    "pickle.loads",
    "pickle.Unpickler",
    "marshal.loads",
    "os.system",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "joblib.load",
}
# Published files hold pickles of plain values, or of modules: their readers allow no name but a list of their own.
UNPICKLERS = {"data/prepare", "exchange/torchscript.py"}


def dotted(node: ast.expr) -> str:
    """The name that is called, as it stands."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def given(call: ast.Call, name: str) -> object:
    """The literal given for a keyword; None when it isn't given."""
    return next((getattr(k.value, "value", ...) for k in call.keywords if k.arg == name), None)


def sins(text: str) -> list[str]:
    """What a source calls that it must not."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module in ("pickle", "marshal"):
            found.append(f"from {node.module} import")
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        if name in FORBIDDEN:
            found.append(name)
        if name == "torch.load" and given(node, "weights_only") is not True:
            found.append("torch.load without weights_only=True")
        if name in ("np.load", "numpy.load") and given(node, "allow_pickle") is not False:
            found.append("np.load without allow_pickle=False")
        if given(node, "shell") not in (None, False):
            found.append("shell=True")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_source_lets_a_file_run_code(path: Path) -> None:
    found = sins(path.read_text("utf-8"))
    if any(place in path.as_posix() for place in UNPICKLERS):
        found = [sin for sin in found if "pickle" not in sin]
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "pickle.load(file)",
        "from pickle import loads",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.load(path, weights_only=trusted)",
        "yaml.load(text)",
        "eval(text)",
        "subprocess.run(command, shell=True)",
        "subprocess.run(command, shell=trusted)",
        "np.load(file)",
        "np.load(file, allow_pickle=True)",
    ],
)
def test_what_is_forbidden_is_found(text: str) -> None:
    assert sins(text)


def test_what_is_allowed_is_let_through() -> None:
    assert not sins(
        "torch.load(f, weights_only=True); np.load(f, allow_pickle=False); yaml.safe_load(t); run(c)"
    )
