"""From trained encoders in three ways: the ways differ in what their names say, and one command trains all of them."""

import json
import subprocess
import sys
from pathlib import Path

import encoders
from cells import ROOT

from albef.recipe import load_recipe


def test_ways_differ_in_what_their_names_say() -> None:
    given = encoders.settings(60, 16, "cpu")
    tasks = {
        way: load_recipe(ROOT / encoders.RECIPE, (*given, *more)).task for way, more in encoders.WAYS.items()
    }
    assert tasks["full"].losses == ("itc", "itm", "mlm")
    assert tasks["itc"].losses == ("itc",)
    assert tasks["itm-mlm"].losses == ("itm", "mlm")
    assert not tasks["itm-mlm"].align_first


def test_all_ways_are_trained_and_each_has_the_figures_of_its_scores(tmp_path: Path) -> None:
    toy = (
        "--model.size=tiny",
        "--model.image_size=28",
        "--train.init_image=",
        "--train.init_text=",
        "--train.init_text_layers=[]",
        "--train.precision=fp32",
        "--train.attention=fused",
        "--train.linear=torch",
        "--data.workers=0",
        "--data.count=24",
        "--evaluate.count=8",
        "--evaluate.top_k=4",
    )
    command = [sys.executable, "scripts/encoders.py", "--steps=2", "--batch-size=4", "--device=cpu"]
    places = [f"--runs={tmp_path / 'runs'}", f"--out={tmp_path / 'found.json'}"]
    done = subprocess.run([*command, *places, *toy], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    recalls = {way: {name for name in ways if name.endswith("r_mean")} for way, ways in found["ways"].items()}
    assert recalls == {
        "full": {"test/itc/r_mean", "test/itm/r_mean", "test/sum/r_mean"},
        "itc": {"test/itc/r_mean"},
        "itm-mlm": {"test/itm/r_mean"},
    }
    again = subprocess.run([*command, *places, *toy], cwd=ROOT, capture_output=True, text=True)
    assert again.returncode == 2
    assert "is there already" in again.stderr
