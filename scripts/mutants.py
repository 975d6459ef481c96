"""Mutation testing: makes one small slip in the code at a time and checks that a test fails.

`make mutants` draws 400 slips from the modules of `CONCERNS`. It makes each in a copy of the package and runs the
test files of that module until one fails. A slip is then "killed", otherwise it "survived". A survivor needs a
better test, or a line in `equivalent_mutants.yaml` that says why it changes nothing.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parent.parent
EXPLAINED = ROOT / "scripts" / "equivalent_mutants.yaml"
PRELOADED = ("torch", "numpy", "cv2", "PIL.Image", "pyarrow", "rich", "yaml", "tokenizers", "safetensors", "xxhash",
             "hypothesis", "jaxtyping", "beartype", "pytest", "torchmetrics")  # fmt: skip
# Seconds, seconds, and a factor on the time without a slip. Tests that take longer are stuck: killed.
SHORTEST_LIMIT, LONGEST_LIMIT, LIMIT_FACTOR = 60.0, 300.0, 4.0

# The beginning of a module's path, and its tests, the fastest and most specific first.
CONCERNS: dict[str, tuple[str, ...]] = {
    "evaluation/metrics.py": ("evaluation/test_metrics.py", "evaluation/test_intervals.py"),
    "evaluation/evaluate.py": ("evaluation/test_evaluate.py", "evaluation/test_intervals.py"),
    "evaluation/ranking.py": ("evaluation/test_ranking.py", "test_ranker.py", "evaluation/test_evaluate.py"),
    "evaluation/grounding.py": (
        "evaluation/test_grounding.py",
        "evaluation/test_judged.py",
        "evaluation/test_judged_classes.py",
    ),
    "evaluation/naming.py": ("evaluation/test_naming.py",),
    "evaluation/protocol.py": ("evaluation/test_protocol.py",),
    "evaluation/tables.py": ("evaluation/test_tables.py", "evaluation/test_judged.py"),
    "evaluation/by_task.py": ("evaluation/test_by_task.py", "evaluation/test_precision.py"),
    "evaluation/classes.py": ("evaluation/test_judged_classes.py", "evaluation/test_judged.py"),
    "evaluation/vqa.py": ("evaluation/test_judged_answers.py", "evaluation/test_judged.py"),
    "evaluation/": ("evaluation",),
    "objectives.py": ("test_objectives.py", "tasks", "parity"),
    "momentum.py": ("test_momentum.py", "tasks", "parity"),
    "ranker.py": ("test_ranker.py", "evaluation/test_ranking.py"),
    "tasks/base.py": ("tasks", "train/test_parts.py", "parity"),
    "tasks/": ("tasks", "parity"),
    "data/answers.py": ("data/test_answers.py",),
}


@dataclass(frozen=True)
class Mutant:
    """A slip at one place of a module."""

    file: str  # path below the package
    line: int
    start: int  # the bytes from here to `stop` become `new`
    stop: int
    old: str
    new: str

    @property
    def change(self) -> str:
        """The old text and the new one."""
        return f"{self.old} → {self.new or 'nothing'}"

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.change}"


@dataclass(frozen=True)
class Project:
    """A package, its tests, and which tests belong to which module."""

    package: Path
    tests: Path
    concerns: dict[str, tuple[str, ...]]

    def concerning(self, file: str) -> tuple[Path, ...]:
        """The tests of a module."""
        tests = next(tests for beginning, tests in self.concerns.items() if file.startswith(beginning))
        return tuple(self.tests / test for test in tests)

    def modules(self, only: Sequence[str] = ()) -> list[str]:
        """The modules that have tests; with `only`, those whose path begins with one of these texts."""
        paths = sorted(path.relative_to(self.package).as_posix() for path in self.package.rglob("*.py"))
        wanted = tuple(only) or tuple(self.concerns)
        return [path for path in paths if path.startswith(tuple(self.concerns)) and path.startswith(wanted)]


COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMED = {"min": "max", "max": "min", "any": "all", "all": "any", "argmin": "argmax", "argmax": "argmin",
         "sum": "mean", "mean": "sum", "zeros": "ones", "ones": "zeros", "floor": "ceil"}  # fmt: skip
UNTOUCHED = (ast.Import, ast.ImportFrom, ast.Assert, ast.Raise, ast.JoinedStr)


def mutants_of(source: str, file: str) -> list[Mutant]:
    """Every slip that can be made in a module. Annotations, docstrings, asserts and messages stay."""
    lines = source.encode().splitlines(keepends=True)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    found = []
    for node, new in changes(ast.parse(source)):
        start = starts[node.lineno - 1] + node.col_offset
        stop = starts[node.end_lineno - 1] + node.end_col_offset
        old = source.encode()[start:stop].decode()
        mutant = Mutant(file, node.lineno, start, stop, " ".join(old.split()), new)
        if mutant.new != f"({ast.unparse(node)})" and compiles(mutated(source, mutant)):
            found.append(mutant)
    return list(dict.fromkeys(found))


def mutated(source: str, mutant: Mutant) -> str:
    """The text with the slip."""
    whole = source.encode()
    return (whole[: mutant.start] + mutant.new.encode() + whole[mutant.stop :]).decode()


def compiles(source: str) -> bool:
    """Whether the text is valid Python."""
    with suppress(SyntaxError):
        return bool(compile(source, "mutant", "exec"))
    return False


def changes(tree: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Places of a module, each with a replacement."""
    for name, value in ast.iter_fields(tree):
        if name in ("annotation", "returns", "decorator_list", "type_params", "bases"):
            continue
        for node in value if isinstance(value, list) else [value]:
            if not isinstance(node, ast.AST) or isinstance(node, UNTOUCHED) or says_no_more_than_types(node):
                continue
            if isinstance(node, ast.expr):
                yield from ((node, f"({new})") for new in other_expressions(node))
            elif isinstance(node, ast.If | ast.While) and isinstance(
                node.test, ast.Name | ast.Attribute | ast.Call
            ):
                yield node.test, f"(not {ast.unparse(node.test)})"
            elif isinstance(node, ast.stmt):
                yield from ((node, new) for new in other_statements(node))
            if not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):  # a docstring
                yield from changes(node)


def says_no_more_than_types(node: ast.AST) -> bool:
    """Whether the node has no effect at run time: the values of a `Literal`, and the length check of `zip`."""
    match node:
        case ast.Subscript(ast.Name("Literal")) | ast.keyword("strict"):
            return True
    return False


def other_expressions(node: ast.expr) -> Iterator[str]:
    """Replacements for an expression."""

    def written(new: ast.expr) -> str:
        return ast.unparse(ast.fix_missing_locations(new))

    match node:
        case ast.Compare(left, [operator], [right]) if type(operator) in COMPARED:
            yield written(ast.Compare(left, [COMPARED[type(operator)]()], [right]))
        case ast.Compare(left, [first, second], [middle, right]) if (
            type(first) in COMPARED and type(second) in COMPARED
        ):
            yield written(ast.Compare(left, [COMPARED[type(first)](), second], [middle, right]))
            yield written(ast.Compare(left, [first, COMPARED[type(second)]()], [middle, right]))
        case ast.BinOp(left, operator, right) if type(operator) in COMPUTED:
            yield written(ast.BinOp(left, COMPUTED[type(operator)](), right))
        case ast.BoolOp(operator, values):
            yield written(ast.BoolOp(ast.Or() if isinstance(operator, ast.And) else ast.And(), values))
        case ast.UnaryOp(ast.Not() | ast.USub() | ast.Invert(), operand):
            yield written(operand)
        case ast.IfExp(_, body, orelse):
            yield from (written(body), written(orelse))
        case ast.Constant(bool(value)):
            yield repr(not value)
        case ast.Constant(int() | float() as value):
            yield repr(value + 1)
        case ast.Constant(str(value)) if value.isidentifier():
            yield repr(f"{value}_")
        case ast.Call(ast.Attribute(of, name, context), arguments, keywords) if name in NAMED:
            yield written(ast.Call(ast.Attribute(of, NAMED[name], context), arguments, keywords))
        case ast.Call(ast.Name(name, context), arguments, keywords) if name in NAMED and name not in ("sum",):
            yield written(ast.Call(ast.Name(NAMED[name], context), arguments, keywords))
        case ast.Call(function, [first, second, *rest], keywords) if not isinstance(first, ast.Starred):
            yield written(ast.Call(function, [second, first, *rest], keywords))
        case ast.ListComp(element, [ast.comprehension(target, over, [_, *_], is_async)]):
            yield written(ast.ListComp(element, [ast.comprehension(target, over, [], is_async)]))
        case ast.GeneratorExp(element, [ast.comprehension(target, over, [_, *_], is_async)]):
            yield written(ast.GeneratorExp(element, [ast.comprehension(target, over, [], is_async)]))


def other_statements(node: ast.stmt) -> Iterator[str]:
    """Replacements for a statement."""
    match node:
        case ast.Expr(ast.Call() | ast.Yield() | ast.YieldFrom()) | ast.AugAssign():
            yield "pass"
        case ast.Return(value) if value is not None and not isinstance(value, ast.Constant):
            yield "return None"
        case ast.Continue():
            yield "break"
        case ast.Break():
            yield "continue"
    if isinstance(node, ast.AugAssign) and type(node.op) in COMPUTED:
        yield ast.unparse(ast.AugAssign(node.target, COMPUTED[type(node.op)](), node.value))


def draw(project: Project, count: int, seed: int, only: Sequence[str] = ()) -> list[Mutant]:
    """A random sample of `count` slips, in the order of the files."""
    every = [
        mutant
        for file in project.modules(only)
        for mutant in mutants_of((project.package / file).read_text("utf-8"), file)
    ]
    chosen = random.Random(seed).sample(range(len(every)), min(count, len(every)))
    return [every[number] for number in sorted(chosen)]


class Bench:
    """A copy of the package in which slips are made and undone, and a process that tests it."""

    def __init__(self, project: Project, folder: Path) -> None:
        self.project, self.folder = project, folder
        shutil.copytree(project.package, folder / "src" / project.package.name)
        self.pid, self.begun, self.limit = 0, 0.0, 0.0

    def write(self, mutant: Mutant | None, file: str) -> None:
        """Writes the module, with or without the slip."""
        text = (self.project.package / file).read_text("utf-8")
        place = self.folder / "src" / self.project.package.name / file
        place.write_text(mutated(text, mutant) if mutant else text, "utf-8")
        for compiled in place.parent.glob(
            f"__pycache__/{place.stem}.*"
        ):  # it may have the same size and time as the new file
            compiled.unlink()

    def start(self, tests: Sequence[Path], limit: float) -> None:
        """Starts a process that runs tests until one fails; `result` says whether one did."""
        sys.stdout.flush()
        self.begun, self.limit = time.monotonic(), limit
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                code = run_tests(self.folder, tests)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    def result(self) -> bool | None:
        """Whether all tests passed; None while they run. Tests that take too long are stopped and count as failed."""
        if time.monotonic() - self.begun > self.limit:
            os.killpg(self.pid, signal.SIGKILL)
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        with suppress(ProcessLookupError):  # processes that the tests may have left
            os.killpg(self.pid, signal.SIGKILL)
        return status == 0

    def output(self) -> str:
        """The end of the output of the tests."""
        return (self.folder / "output.txt").read_text("utf-8", "replace")[-4000:]


def run_tests(folder: Path, tests: Sequence[Path]) -> int:
    """Runs the tests on the package in the folder. Returns 0 if all passed."""
    os.setsid()
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.path.insert(0, str(folder / "src"))
    os.environ |= {"PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    sys.dont_write_bytecode = True
    import pytest
    from hypothesis import Phase, settings

    # The same examples every time, without a search for the smallest failing one.
    phases = (Phase.explicit, Phase.generate)
    settings.register_profile(
        "mutants", deadline=None, max_examples=30, derandomize=True, database=None, phases=phases
    )
    options = ["-x", "-q", "-p", "no:cacheprovider", "--hypothesis-profile=mutants"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # the plugins of pytest are already loaded
    code = pytest.main([*options, f"--basetemp={folder / 'tmp'}", *map(str, tests)])
    sys.stdout.flush()
    return int(code)


def judge(project: Project, mutants: Sequence[Mutant], jobs: int) -> Iterator[tuple[Mutant, bool]]:
    """Each slip and whether it was killed, in the order of the results.

    All tests first run without a slip. Raises `SystemExit` if one fails then.
    """
    seconds: dict[tuple[Path, ...], float] = {}
    waiting: list[tuple[Mutant | None, tuple[Path, ...]]] = []
    for mutant in reversed(mutants):
        waiting.append((mutant, project.concerning(mutant.file)))
    for tests in {project.concerning(mutant.file) for mutant in mutants}:
        first = max(number for number, (_, others) in enumerate(waiting) if others == tests)
        waiting.insert(first + 1, (None, tests))
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch:
        benches = [Bench(project, Path(scratch) / str(number)) for number in range(jobs)]
        working: dict[Bench, tuple[Mutant | None, tuple[Path, ...]]] = {}
        while waiting or working:
            for bench in benches:
                if bench in working:
                    passed = bench.result()
                    if passed is None:
                        continue
                    mutant, tests = working.pop(bench)
                    if mutant is not None:
                        bench.write(None, mutant.file)
                        yield mutant, not passed
                    elif passed:
                        seconds[tests] = time.monotonic() - bench.begun
                    else:
                        sys.exit(f"{bench.output()}\nTests fail without any slip in the code.")
                if waiting:
                    mutant, tests = working[bench] = waiting.pop()
                    if mutant is not None:
                        bench.write(mutant, mutant.file)
                    bench.start(tests, max(SHORTEST_LIMIT, LIMIT_FACTOR * seconds.get(tests, LONGEST_LIMIT)))
            time.sleep(0.05)


def main() -> None:
    """Prints a line for each slip, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=400, help="number of slips to try (default: 400)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the sample (default: 0)")
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="PATH",
        help="beginning of a module's path; repeat the option for several (default: all modules)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=os.cpu_count() or 1,
        help="number of parallel processes (default: the number of cores)",
    )
    parser.add_argument("--list", action="store_true", help="print the slips and stop (default: off)")
    given = parser.parse_args()
    project = Project(ROOT / "src" / "albef", ROOT / "tests", CONCERNS)
    mutants = draw(project, given.count, given.seed, given.only)
    if given.list:
        print(*mutants, sep="\n")
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    os.chdir(ROOT)
    for module in PRELOADED:  # once, for all processes that are forked from here
        __import__(module)
    explained = yaml.safe_load(EXPLAINED.read_text("utf-8")) or {}
    survivors: list[Mutant] = []
    begun, same = time.monotonic(), 0
    for number, (mutant, killed) in enumerate(judge(project, mutants, given.jobs), 1):
        why = explained.get(mutant.file, {}).get(mutant.change)
        said = "killed" if killed else f"survived, as it must: {why}" if why else "SURVIVED"
        print(f"{number}/{len(mutants)} {said}: {mutant}", flush=True)
        same += bool(not killed and why)
        survivors += [] if killed or why else [mutant]
    print(f"\n{len(survivors)} survived without an explanation:", *survivors, sep="\n  ")
    real = len(mutants) - same
    print(
        f"{real - len(survivors)} of {real} killed ({(real - len(survivors)) / max(real, 1):.1%}), "
        f"{same} change nothing; seed {given.seed}, {(time.monotonic() - begun) / 60:.0f} minutes"
    )


if __name__ == "__main__":
    main()
