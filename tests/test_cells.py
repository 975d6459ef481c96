"""Cells run once, go on where they were stopped, and their rows say what they are measurements of."""

import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import cells
import evidence
import pytest
import results
from cells import Cell, read_rows, run_cells
from results_page import SEEDS, fill_readme, latest, page

from albef.cli import build_parser
from albef.config import UserError
from albef.recipe import load_recipe

CELL = Cell(
    "one", "recipes/quickstart.yaml", 1, measures={"more": ("albef", "evaluate", "{run}", "--count=500")}
)


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every command that was called; in place of doing its work it writes the files that the work would."""
    commands: list[list[str]] = []

    def fake(command: list[str], log: Path, name: str) -> None:
        commands.append(command)
        if "train" in command or cells.WITHOUT_REPORT in command:
            run = Path(command[-1] if "--resume" in command else command[command.index("--out") + 1])
            run.mkdir(parents=True, exist_ok=True)
            (run / "metrics.json").write_text('{"test/itc/t2i_r1": 0.5}')
            (run / "report.html").write_text("")
        else:
            Path(command[command.index("--json") + 1]).write_text('{"count": 3}')

    monkeypatch.setattr(cells, "call", fake)
    monkeypatch.setattr(cells, "commit", lambda: "abc1234")
    return commands


def run(cells_: list[Cell], folder: Path) -> list[cells.Row]:
    """Runs cells, silently; all rows after it."""
    run_cells(cells_, folder / "kept" / "rows.jsonl", folder / "runs", say=lambda line: None)
    return read_rows(folder / "kept" / "rows.jsonl")


def test_every_version_of_python_gives_the_code_the_same_hash() -> None:
    source = 'class A:\n    """Gone."""\n    def f(self, *a): return [a]\n    async def g(self): pass'
    assert hashlib.sha256(cells.without_docstrings(source).encode()).hexdigest()[:12] == "c59ea869cb9d"


def test_a_row_names_its_cell_commit_code_machine_and_figures(
    called: list[list[str]], tmp_path: Path
) -> None:
    (row,) = run([CELL], tmp_path)
    assert row["cell"] == "one"
    assert row["commit"] == "abc1234"
    assert row["code"] == cells.code_hash()
    assert row["cpu"] == cells.cpu()
    assert row["seconds"] >= 0
    assert row["figures"] == {"training": {"test/itc/t2i_r1": 0.5}, "more": {"count": 3}}
    assert [command[1:4] for command in called] == [["-m", "albef", "train"], ["-m", "albef", "evaluate"]]


def test_a_finished_cell_is_not_run_again_and_a_changed_one_is(
    called: list[list[str]], tmp_path: Path
) -> None:
    run([CELL], tmp_path)
    called.clear()
    assert len(run([CELL], tmp_path)) == 1
    assert not called
    changed = Cell("one", CELL.recipe, 1, ("--train.seed=7",), CELL.measures)
    assert [row["cell"] for row in run([changed], tmp_path)] == ["one", "one"]
    assert "--train.seed=7" in called[0]


def test_a_stopped_training_is_resumed_and_a_finished_one_only_measured(
    called: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finishing = cells.call

    def stopped(command: list[str], log: Path, name: str) -> None:
        (tmp_path / "runs" / "one" / "checkpoints").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(cells, "call", stopped)
    with pytest.raises(KeyboardInterrupt):
        run([CELL], tmp_path)
    monkeypatch.setattr(cells, "call", finishing)
    run([CELL], tmp_path)
    assert "--resume" in called[0]
    (tmp_path / "kept" / "rows.jsonl").unlink()
    (tmp_path / "runs" / "one.more.json").unlink()
    called.clear()
    run([CELL], tmp_path)
    assert [command[3] for command in called] == ["evaluate"]


def test_a_run_of_other_settings_in_the_place_is_not_taken(called: list[list[str]], tmp_path: Path) -> None:
    run([CELL], tmp_path)
    (tmp_path / "kept" / "rows.jsonl").unlink()
    (tmp_path / "runs" / "one" / "checkpoints").mkdir()
    called.clear()
    run([Cell("one", CELL.recipe, 1, ("--train.seed=7",))], tmp_path)
    assert [command[3] for command in called] == ["train"]
    assert "--resume" not in called[0]


def test_trainings_that_start_from_a_cell_are_part_of_its_row(
    called: list[list[str]], tmp_path: Path
) -> None:
    then = {"vqa": cells.Training("recipes/pictograms/vqa.yaml", ("--train.steps=5",))}
    (row,) = run([Cell("one", CELL.recipe, 1, then=then, report=False)], tmp_path)
    assert set(row["figures"]) == {"training", "vqa"}
    assert row["then"] == {"vqa": {"recipe": "recipes/pictograms/vqa.yaml", "settings": ["--train.steps=5"]}}
    first, second = called
    assert first[1:3] == [cells.WITHOUT_REPORT, CELL.recipe]
    runs = tmp_path / "runs"
    assert second[1:] == [
        *(cells.WITHOUT_REPORT, "recipes/pictograms/vqa.yaml", "--out", str(runs / "one.vqa")),
        *(f"--train.init={runs / 'one'}", "--train.steps=5"),
    ]


def test_nothing_that_was_made_of_another_run_is_taken(called: list[list[str]], tmp_path: Path) -> None:
    then = {"vqa": cells.Training("recipes/pictograms/vqa.yaml")}
    run([Cell("one", CELL.recipe, 1, measures=CELL.measures, then=then)], tmp_path)
    called.clear()
    run([Cell("one", CELL.recipe, 1, ("--train.seed=7",), CELL.measures, then=then)], tmp_path)
    assert [command[3] for command in called] == ["train", "evaluate", "train"]


def test_a_stopped_training_from_a_cell_is_resumed(called: list[list[str]], tmp_path: Path) -> None:
    cell = Cell("one", CELL.recipe, 1, then={"vqa": cells.Training("recipes/pictograms/vqa.yaml")})
    run([cell], tmp_path)
    (tmp_path / "kept" / "rows.jsonl").unlink()
    (tmp_path / "runs" / "one.vqa" / "report.html").unlink()
    (tmp_path / "runs" / "one.vqa" / "checkpoints").mkdir()
    called.clear()
    run([cell], tmp_path)
    assert [command[3:] for command in called] == [["train", "--resume", str(tmp_path / "runs" / "one.vqa")]]


def test_data_that_several_cells_need_are_prepared_once_for_each_version_of_the_code(
    called: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("scripts/regions.py", "a.yaml", "{runs}/regions", "--steps=400")
    monkeypatch.setattr(cells, "call", lambda command, log, name: called.append(command))
    monkeypatch.setattr(cells, "code_hash", lambda: "a")
    for cell in ("one", "two"):
        cells.prepare("regions-1", command, cell, tmp_path, quick=False)
    assert [command[1:] for command in called] == [
        ["scripts/regions.py", "a.yaml", f"{tmp_path}/regions", "--steps=400"]
    ]
    monkeypatch.setattr(cells, "code_hash", lambda: "b")
    cells.prepare("regions-1", command, "one", tmp_path, quick=False)
    assert len(called) == 2
    cells.prepare("regions-1", (*command, "--seed=2"), "one", tmp_path, quick=False)
    assert len(called) == 3
    assert cells.reduced(["a", "--count=500", "--steps=400", "--split=test", "--top-k=64"]) == [
        *("a", "--count=8", "--steps=2", "--split=test", "--top-k=4")
    ]


def test_cells_side_by_side_begin_once_their_data_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two at a time: neither ends before the other has begun."""
    begun, both = list[str](), threading.Barrier(2, timeout=20)

    def fake(command: list[str], log: Path, name: str) -> None:
        begun.append(command[1])
        both.wait()
        if command[1] == cells.WITHOUT_REPORT:
            run = Path(command[command.index("--out") + 1])
            run.mkdir(parents=True)
            (run / "metrics.json").write_text("{}")

    monkeypatch.setattr(cells, "call", fake)
    monkeypatch.setattr(cells, "commit", lambda: "abc1234")
    before = {"first": ("first.py",), "second": ("second.py",)}
    some = [Cell(name, CELL.recipe, 1, report=False, before=before) for name in ("one", "two")]
    run_cells(some, tmp_path / "rows.jsonl", tmp_path / "runs", say=lambda line: None, side_by_side=2)
    assert sorted(begun[:2]) == ["first.py", "second.py"]
    assert begun[2:] == 2 * [cells.WITHOUT_REPORT]
    assert {row["cell"] for row in read_rows(tmp_path / "rows.jsonl")} == {"one", "two"}


def test_where_one_fails_no_other_cell_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []

    def fake(command: list[str], log: Path, name: str) -> None:
        begun.append(name)
        if name == "cell 0":
            raise UserError("the disk is full")
        while len(begun) < 2:
            time.sleep(0.01)
        time.sleep(0.1)

    monkeypatch.setattr(cells, "call", fake)
    monkeypatch.setattr(cells, "commit", lambda: "abc1234")
    some = [Cell(f"cell {number}", CELL.recipe, 1, report=False) for number in range(9)]
    with pytest.raises(UserError, match="the disk is full"):
        run_cells(some, tmp_path / "rows.jsonl", tmp_path / "runs", say=lambda line: None, side_by_side=2)
    assert len(begun) < 9


def test_commands_within_this_process_fail_and_succeed_as_they_would_outside(tmp_path: Path) -> None:
    log, script = tmp_path / "one.log", tmp_path / "a.py"
    script.write_text("import sys; print(sys.argv[1:]); sys.exit(int(sys.argv[1]))")
    cells.call_here(["python", str(script), "0"], log, "one")
    assert log.read_text().endswith("['0']\n")
    with pytest.raises(UserError, match=r"The cell one failed with exit status 3; .*\n\['3'\]"):
        cells.call_here(["python", str(script), "3"], log, "one")
    script.write_text("raise ValueError('no such thing')")
    with pytest.raises(UserError, match=r"exit status 1; .*\nValueError: no such thing"):
        cells.call_here(["python", str(script)], log, "one")
    cells.call_here(["python", "-m", "albef", "--version"], log, "one")
    with pytest.raises(UserError, match="exit status 2"):
        cells.call_here(["python", "-m", "albef", "train"], log, "one")


def test_a_cell_without_what_it_needs_is_left_out_and_named(called: list[list[str]], tmp_path: Path) -> None:
    told: list[str] = []
    needy = Cell("two", CELL.recipe, 1, needs=("runs/no-such-weights",))
    run_cells([needy, CELL], tmp_path / "rows.jsonl", tmp_path / "runs", say=told.append)
    assert [row["cell"] for row in read_rows(tmp_path / "rows.jsonl")] == ["one"]
    assert any("two: left out, there is no runs/no-such-weights" in line for line in told)


def test_a_command_that_fails_ends_the_run_with_its_last_line(tmp_path: Path) -> None:
    failing = ["python3", "-c", "import sys; print('the disk is full'); sys.exit(2)"]
    with pytest.raises(UserError, match=r"The cell one failed with exit status 2; .*\nthe disk is full"):
        cells.call(failing, tmp_path / "one.log", "one")


def test_code_that_differs_from_its_commit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        (tmp_path / "src").mkdir(exist_ok=True)
        (tmp_path / "src" / "a.py").write_text("1\n")
        author = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run(["git", *author, *command], cwd=tmp_path, check=True)
    monkeypatch.setattr(cells, "ROOT", tmp_path)
    assert len(cells.commit()) >= 7
    (tmp_path / "src" / "a.py").write_text("2\n")
    with pytest.raises(UserError, match=r"differs from its commit[^\n]*\n.*src/a.py"):
        cells.commit()


def test_words_change_no_code_and_a_number_does() -> None:
    source = '"""One."""\ndef f():\n    """Two."""\n    return 1\n'
    reworded = '"""Other."""\n# why\ndef f():\n    """Words."""\n    return 1\n'
    assert cells.without_docstrings(source) == cells.without_docstrings(reworded)
    assert cells.without_docstrings(source) != cells.without_docstrings(source.replace("1", "2"))


@pytest.mark.parametrize("cell", results.CELLS, ids=lambda cell: cell.name)
def test_every_cell_of_the_results_has_a_recipe_and_commands_that_parse(cell: Cell, tmp_path: Path) -> None:
    load_recipe(cells.ROOT / cell.recipe, [*cells.filled(["albef", *cell.settings], tmp_path, tmp_path)[3:]])
    for command in cell.measures.values():
        if command[0] == "albef":
            build_parser().parse_args(cells.filled(command, tmp_path, tmp_path)[3:])
        else:
            assert (cells.ROOT / command[0]).is_file()


@pytest.mark.parametrize("script", [evidence, results])
def test_ctrl_c_ends_with_a_sentence(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def stopped(*given: object, **named: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(script, "run_cells", stopped)
    monkeypatch.setattr(sys, "argv", ["script", "--quick", str(tmp_path)])
    with pytest.raises(SystemExit, match="130"):
        script.main()
    assert capsys.readouterr().err == "Stopped. The same command goes on from here.\n"


def test_rows_of_different_code_make_no_page() -> None:
    rows = [{"cell": "one", "code": "a"}, {"cell": "two", "code": "b"}]
    with pytest.raises(UserError, match=r"different code: one \(a\), two \(b\)"):
        latest(rows)
    assert latest([{"cell": "one", "code": "a"}, {"cell": "one", "code": "b"}])["one"]["code"] == "b"


def test_the_page_and_readme_are_made_of_the_rows() -> None:
    rows = latest(read_rows(results.ROWS))
    assert results.PAGE.read_text("utf-8") == page(rows, results.NAMES)
    readme = results.README.read_text("utf-8")
    assert fill_readme(readme, rows) == readme
    assert set(rows) <= {cell.name for cell in results.CELLS}
    assert all(name in rows for name in SEEDS)


def test_the_page_names_what_is_not_measured_yet() -> None:
    rows = latest(read_rows(results.ROWS))
    assert "Not measured yet: a, b." in page(rows, [*rows, "a", "b"])
    assert "Not measured yet" not in page(rows, list(rows))
