"""`make gpu` on a CPU: a part that fails, hangs or dies is told in a line, and the others go on."""

import ast
import json
import os
import site
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

import gpu
import gpu_page
import gpu_use
import pytest
import torch
from gpu_setting import Figures, Setting
from rich.console import Console

ROOT = Path(__file__).parent.parent


def good(setting: Setting) -> Iterator[Figures]:
    yield {"speed": 1234}
    yield {"memory": "3 GiB"}


def wrong(setting: Setting) -> Iterator[Figures]:
    yield {"before": 1}
    raise ValueError("it is\nwrong")


def dead(setting: Setting) -> Iterator[Figures]:
    yield {"before": 2}
    os._exit(9)


def hanging(setting: Setting) -> Iterator[Figures]:
    yield {"before": 3}
    time.sleep(600)


def run_script(
    parts: dict[str, object], arguments: list[str], out: Path, monkeypatch: pytest.MonkeyPatch
) -> int:
    planned = {"long": 500}
    table = tuple(gpu.Part(name, planned.get(name, 1), part) for name, part in parts.items())
    monkeypatch.setattr(gpu, "PARTS", table)
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--device", "cpu", "--out", str(out), *arguments])
    return gpu.main()


def test_every_part_is_told_of_and_one_table_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = {"one": good, "wrong": wrong, "dead": dead, "hanging": hanging, "long": good, "last": good}
    monkeypatch.setattr(gpu, "OVERTIME", 1.0)
    monkeypatch.setattr(gpu, "Console", lambda width: Console(width=200))
    assert run_script(parts, ["--seconds", "60"], tmp_path / "gpu.json", monkeypatch) == 1
    found = json.loads((tmp_path / "gpu.json").read_text())
    states = {part["name"]: (part["state"], part["reason"]) for part in found["parts"]}
    assert states["one"] == states["last"] == ("done", "")
    assert states["wrong"] == ("failed", "ValueError: it is")
    assert states["dead"] == ("failed", "its process ended with exit code 9")
    assert states["hanging"] == ("failed", "it took longer than 1 s")
    assert states["long"][0] == "skipped"
    figures = {part["name"]: part["figures"] for part in found["parts"]}
    assert figures["one"] == {"speed": 1234, "memory": "3 GiB"}
    assert figures["hanging"] == {"before": 3}
    said = capfd.readouterr().out
    assert "long: skipped, 500 s are planned" in said
    table = said[said.rindex("make gpu, ") :]
    assert [name for name in parts if name in table] == list(parts)
    assert "ValueError: it is" in table
    assert "1,234" in table


def test_a_replay_copies_a_tensor_to_the_host_before_numpy_reads_it() -> None:
    sources = [*(ROOT / "tests" / "parity").glob("replay*.py"), *(ROOT / "benchmarks").glob("gpu*.py")]
    calls = [
        (path.name, ast.unparse(node.value))
        for path in sources
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute) and node.attr == "numpy"
    ]
    assert calls
    assert not [found for found in calls if not found[1].endswith(".cpu()")]


def test_loading_processes_find_the_checkout_where_albef_is_not_installed() -> None:
    # Without `site` nothing is installed in editable mode. Python's fork server does not know this process's sys.path.
    places = [site.getsitepackages()[0], *(str(ROOT / place) for place in ("scripts", "tests", "benchmarks"))]
    program = (
        "import gpu, multiprocessing\n"
        "gpu.tell_children_of_the_checkout()\n"
        "context = multiprocessing.get_context('forkserver')\n"
        "context.set_forkserver_preload(['albef.data.loader'])\n"
        'with context.Pool(1) as pool: print(pool.apply(eval, (\'"albef.data.loader" in __import__("sys").modules\',)))'
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(places)}
    done = subprocess.run(
        [sys.executable, "-S", "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_speed_counts_the_images_of_the_second_half(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 0.05, 0.09, 0.12, 0.14, 0.16, 0.18, 0.2, 0.3])  # the first batches take longer
    monkeypatch.setattr(gpu_use.time, "perf_counter", lambda: next(clock))
    quick = Setting(torch.device("cpu"), True, Path())
    assert gpu_use.images_per_second(repeat(quick.batch(8)), quick) == pytest.approx(4 * 8 / 0.08)


def test_without_a_gpu_it_says_how_to_try_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "gpu_is_here", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit):
        gpu.main()
    assert "DEVICE=cpu QUICK=1" in capsys.readouterr().err


def test_its_section_stays_when_the_others_are_written_again() -> None:
    found = {
        "date": "2026-11-27",
        "parts": [
            {"name": "step", "state": "done", "reason": "", "figures": {"batch 64": "5 ms"}},
            {"name": "loader", "state": "failed", "reason": "no room", "figures": {}},
        ],
    }
    page = "# Benchmarks\n\n## Step\n\nwords\n"
    assert gpu_page.NOT_RUN in gpu_page.section_of(page)
    first = gpu_page.with_section(page, gpu_page.section_of(page))
    second = gpu_page.with_section(f"{first}\n## Growth\n\nmore\n", gpu_page.section(found))
    assert gpu_page.NOT_RUN not in second
    assert "| step | batch 64 | 5 ms |" in second
    assert "| loader | failed | no room |" in second
    assert "## Step\n\nwords" in second
    assert second.endswith("\n## Growth\n\nmore\n")
    assert gpu_page.section_of(second) == gpu_page.section(found)


def test_all_parts_run_with_toy_sizes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "scripts/gpu.py",
        "--device",
        "cpu",
        "--quick",
        "--out",
        str(tmp_path / "gpu.json"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert {part["name"]: part["reason"] for part in found["parts"]} == {part.name: "" for part in gpu.PARTS}
    assert done.returncode == 0, done.stderr
    assert all(part["figures"] for part in found["parts"])
