"""Whether every system and task trains on a GPU and is measured there: the recipes on drawings, a few steps each."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gpu_setting import Figures, Setting

from albef.recipe import load_recipe
from albef.run import run

ROOT = Path(__file__).parent.parent
RECIPES = ROOT / "recipes"
STEPS = 12
ON_PIXELS, ON_REGIONS = ("quickstart", "clip"), ("uniter", "oscar", "lxmert")
TOY = "quickstart", "retrieval", "uniter"  # one of each kind
FINE_TUNED = "retrieval", "vqa", "entailment", "nlvr"  # from the model of the first recipe


def systems_part(setting: Setting) -> Iterator[Figures]:
    """Each recipe in little: no step may be skipped, and the exported model is loaded and measured."""
    first, regions = setting.folder / "quickstart", setting.folder / "regions"
    for name in TOY if setting.quick else (*ON_PIXELS, *FINE_TUNED, *ON_REGIONS):
        given = settings(setting)
        if name in FINE_TUNED:
            given.append(f"--train.init={first / 'model'}")
        if name in ON_REGIONS:
            write_regions(recipe_of(name), regions, given, setting.folder / "regions.log")
            given.append(f"--data.regions={regions / 'poor'}")
        folder, begin = setting.folder / name, time.perf_counter()
        with open(f"{folder}.log", "w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
            run(load_recipe(recipe_of(name), given), folder, report=folder == first)
        metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
        last = json.loads((folder / "log.jsonl").read_text("utf-8").splitlines()[-1])
        norm, skipped = last["grad_norm"], metrics["train/skipped_steps"]
        measured = sum(key.startswith("test/") for key in metrics)
        yield {
            name: f"{STEPS - skipped} of {STEPS} steps, gradient norm {norm:.3g}, {measured} figures, "
            f"{time.perf_counter() - begin:.0f} s"
        }
        if skipped or not (0 < norm < math.inf and measured):
            raise RuntimeError(f"{name}: {skipped} steps skipped, gradient norm {norm}, {measured} figures")


def recipe_of(name: str) -> Path:
    """The recipe on drawings of that name."""
    return (RECIPES if name == "quickstart" else RECIPES / "pictograms") / f"{name}.yaml"


def settings(setting: Setting) -> list[str]:
    """A training so short that it learns nothing."""
    return [
        f"--train.device={setting.device}",
        f"--train.steps={STEPS}",
        "--train.batch_size=16",
        "--train.warmup_steps=2",
        "--train.processes=1",
        f"--train.checkpoint_every_steps={STEPS}",
        "--evaluate.count=12",
        "--evaluate.top_k=8",
        "--evaluate.splits=[test]",
    ]


def write_regions(recipe: Path, folder: Path, given: list[str], log: Path) -> None:
    """What a poor detector finds in the recipe's drawings; its classifier is hardly trained."""
    script = [sys.executable, ROOT / "scripts" / "regions.py", recipe, folder, "--steps=2", *given]
    with open(log, "a", encoding="utf-8") as handle:
        subprocess.run(script, check=True, stdout=handle, stderr=subprocess.STDOUT)
