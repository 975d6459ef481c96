"""What is trained and measured for docs/evidence.md: one cell for each way of pre-training and each seed.

The name of a cell is the name of its way and the seed: "full-1". A way is never chosen by the figures of these seeds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cells import ROOT, Cell, Training

QUICKSTART, CLIP = "recipes/quickstart.yaml", "recipes/pictograms/clip.yaml"
SEEDS = (1, 2, 3, 4, 5)
FINE_TUNED = SEEDS[:3]
RATE_SEED = 9  # learning rates are tried with this seed, in training and in the gallery
RATES = {"lowest": "7.5e-4", "low": "1.5e-3", "middle": "3.0e-3", "high": "6.0e-3"}
# The rate of each system, chosen by the figures of RATE_SEED alone.
CHOSEN = {"albef": "middle", "clip": "high", "lxmert": "low", "uniter": "lowest", "oscar": "lowest"}
PACES = (
    ROOT / "evidence" / "paces.json"
)  # seconds of a step of each system, as scripts/paces.py measured them
# Each cell has one core.
ALONE = ("--train.processes=1", "--train.threads=1")
STEPS, RAMP, BATCH = 680, 600, 128  # the batch of all recipes
GALLERY = ("--evaluate.splits=[test]", "--evaluate.count=500")
SHORT = (
    f"--train.steps={STEPS}",
    f"--task.alpha_ramp_steps={RAMP}",
    f"--train.lr={RATES[CHOSEN['albef']]}",
    *GALLERY,
)

# By way: what it is trained with. Only without ITC does it begin with all of its losses at once.
ABLATION: dict[str, tuple[str, ...]] = {
    "itm-mlm": ("--task.losses=[itm,mlm]", "--task.distill=[]", "--task.align_first=0"),
    "itc": ("--task.hardness=0", "--task.distill=[]"),
    "hard": ("--task.distill=[]",),
    "distilled-itc": ("--task.distill=[itc]",),
    "full": (),
}
WITHOUT_TEACHER = ("--task.distill=[]",)
LARGE_GALLERY = ("albef", "evaluate", "{run}", "--split=test", "--count=4000")
FALSE_PAIRS = ("scripts/false_pairs.py", "{run}", "--count=2048")
INFORMATION = ("scripts/mutual_information.py", "{run}", "--count=10000", "--scenes=200000")
COST = ("scripts/retrieval_cost.py", "{run}", "--queries=20", "--top-k=64", "--count=500")
TIMED = "costs-1"  # the row of scripts/query_costs.py, which is not a training
# So that CLIP has as many parameters as ALBEF without its teacher, within 1 %.
AS_LARGE = ("--model.text_mlp_width=448",)
NOISE = (0.0, 0.2, 0.5, 0.8)
USUAL_NOISE = 0.2  # of the recipe, so "full" and "hard" have it
STEPS_OF = {"retrieval": 350, "vqa": 600, "nlvr": 450, "entailment": 400}  # half of the recipes'
# Five captions for each image, so a model without ITC matches 450,000 pairs.
FEWER = {"retrieval": ("--evaluate.count=300",)}
MINUTES_OF = {"retrieval": 2.0, "vqa": 4.0, "nlvr": 4.5, "entailment": 2.2}
# Systems on regions: whose recipe, which detector of scripts/regions.py, and what they are fine-tuned for.
ON_REGIONS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "lxmert": ("lxmert", "poor", ("retrieval", "vqa", "nlvr")),
    "uniter": ("uniter", "poor", ("retrieval", "vqa", "nlvr", "entailment")),
    "uniter-oracle": ("uniter", "oracle", ("retrieval", "vqa", "nlvr", "entailment")),
    "oscar": ("oscar", "poor", ("retrieval", "vqa", "nlvr")),
}


def fine_tunings(
    names: Sequence[str], seed: int, settings: Sequence[str], suffix: str = ""
) -> dict[str, Training]:
    """Trainings of these tasks from a cell's model, at half the length of their recipes."""
    return {
        name + suffix: Training(
            f"recipes/pictograms/{name}.yaml",
            (
                *ALONE,
                f"--train.steps={STEPS_OF[name]}",
                f"--train.seed={seed}",
                "--evaluate.splits=[test]",
                *FEWER.get(name, ()),
                *settings,
            ),
        )
        for name in names
    }


def ablation(way: str, seed: int) -> Cell:
    """A row of the paper's first table. Distillation in fine-tuning is its last row, of the same pre-training."""
    then: dict[str, Training] = {}
    if seed in FINE_TUNED and way != "distilled-itc":
        tasks = ["vqa", "nlvr", *(["entailment"] if way in ("itm-mlm", "full") else [])]
        losses = ("--task.losses=[itm]",) if way == "itm-mlm" else ()
        then = fine_tunings(["retrieval"], seed, (*WITHOUT_TEACHER, *losses))
        then |= fine_tunings(tasks, seed, WITHOUT_TEACHER)
        if way == "full":
            then |= fine_tunings(["retrieval", *tasks], seed, (), "-distilled")
    minutes = 5 + sum(MINUTES_OF[name.removesuffix("-distilled")] for name in then)
    measures: dict[str, tuple[str, ...]] = {}
    if way == "full" and seed in FINE_TUNED:
        measures = {"gallery-4000": LARGE_GALLERY, "false-pairs": FALSE_PAIRS, "information": INFORMATION}
        measures |= {"cost": COST} if seed == SEEDS[0] else {}
        minutes += 3
    return cell(way, seed, QUICKSTART, minutes, (*SHORT, *ABLATION[way]), then, measures)


def noisy(share: float, teacher: bool, seed: int) -> Cell:
    """A pre-training on captions of which this share is noisy, with or without the teacher's soft targets."""
    settings = (*SHORT, f"--data.caption_noise={share}", *(() if teacher else WITHOUT_TEACHER))
    measures = {"false-pairs": FALSE_PAIRS} if share else {}
    return cell(noise_name(share, teacher), seed, QUICKSTART, 5, settings, measures=measures)


def noise_name(share: float, teacher: bool) -> str:
    """The way of this share of noisy captions."""
    if share == USUAL_NOISE:
        return "full" if teacher else "hard"
    return f"noise-{round(100 * share)}-{'full' if teacher else 'hard'}"


def rate(system: str) -> str:
    """The setting of a system's learning rate."""
    return f"--train.lr={RATES[CHOSEN[system]]}"


def clip(seed: int, times: int = 1) -> Cell:
    """CLIP, with as many times the pairs."""
    name = "clip" if times == 1 else f"clip-{times}x"
    measures = {"gallery-4000": LARGE_GALLERY}
    measures |= {"cost": COST} if (seed, times) == (SEEDS[0], 1) else {}
    settings = (f"--train.steps={STEPS * times}", rate("clip"), *AS_LARGE, *GALLERY)
    then = fine_tunings(["retrieval"], seed, ()) if times == 1 else {}
    return cell(name, seed, CLIP, 4.5 * times + (3 if then else 1), settings, then, measures)


def on_regions(name: str, seed: int) -> Cell:
    """A system on regions, with the pairs that ALBEF has seen, and the regions of all its images."""
    system, detector, tasks = ON_REGIONS[name]
    found = f"--data.regions={{runs}}/regions/{detector}"
    trained = (f"--train.steps={STEPS}", f"--train.seed={seed}", *GALLERY)
    then = fine_tunings(tasks, seed, (found,))
    before = {f"regions-{detector}-{seed}": regions_in_training(detector, seed)}
    for task in STEPS_OF:  # also of the tasks of the others with this detector
        one = fine_tunings([task], seed, ())[task]
        before[f"regions-{detector}-{task}-{seed}"] = regions_of(one.recipe, detector, one.settings)
    minutes = 4 + 8 + sum(MINUTES_OF[task] for task in then)  # 8: regions, and ranking by all pairs
    cost = {"cost": (*COST, f"--regions={{runs}}/regions/{detector}")} if seed == SEEDS[0] else {}
    recipe = f"recipes/pictograms/{system}.yaml"
    one = cell(name, seed, recipe, minutes, (*trained, rate(system), found), then, cost, before)
    return dataclasses.replace(one, needs=(PACES.relative_to(ROOT).as_posix(),))


def at_equal_seconds(system: str, seed: int) -> Cell:
    """A system that has trained for as long as ALBEF, which scripts/paces.py tells. Finding regions is not counted."""
    name, settings = f"{system}-seconds", (f"--train.steps={steps_of(system)}", rate(system), *GALLERY)
    if system == "clip":
        one = cell(name, seed, CLIP, 4, (*settings, *AS_LARGE))
    else:
        before = {f"regions-poor-{seed}": regions_in_training("poor", seed)}
        own = (*settings, "--data.regions={runs}/regions/poor")
        one = cell(name, seed, f"recipes/pictograms/{system}.yaml", 6, own, before=before)
    return dataclasses.replace(one, needs=(PACES.relative_to(ROOT).as_posix(),))


def steps_of(system: str) -> int:
    """How many steps of a system take as long as ALBEF's training."""
    paces = json.loads(PACES.read_text("utf-8"))["seconds_a_step"] if PACES.is_file() else {}
    return round(STEPS * paces["albef"] / paces[system]) if paces else STEPS


def regions_in_training(detector: str, seed: int) -> tuple[str, ...]:
    """The command for the regions of a pre-training. Its first steps see the images of a shorter one."""
    steps = max(map(steps_of, ["albef", *ON_REGIONS.keys() & CHOSEN.keys()])) if detector == "poor" else STEPS
    return regions_of(QUICKSTART, detector, (f"--train.steps={steps}", f"--train.seed={seed}", *GALLERY))


Paced = tuple[str, tuple[str, ...], bool]


def paced(regions: Path) -> dict[str, Paced]:
    """By system: the recipe and settings whose steps are timed, and whether they need regions, which lie in a folder."""
    found: dict[str, Paced] = {
        "albef": (QUICKSTART, (*SHORT, *ALONE), False),
        "clip": (CLIP, (*AS_LARGE, *ALONE), False),
    }
    for system in ("lxmert", "uniter", "oscar"):
        found[system] = (
            f"recipes/pictograms/{system}.yaml",
            (f"--data.regions={regions}/poor", *ALONE),
            True,
        )
    return found


def regions_of(recipe: str, detector: str, settings: Sequence[str]) -> tuple[str, ...]:
    """The command that writes the regions of a training's images."""
    return (
        "scripts/regions.py",
        recipe,
        "{runs}/regions",
        f"--detector={detector}",
        "--steps=400",
        *settings,
    )


def regions_in_gallery(seed: int) -> dict[str, tuple[str, ...]]:
    """The regions for trying learning rates: of a training, and of the gallery of that seed."""
    settings = (f"--train.steps={STEPS}", f"--train.seed={seed}", *GALLERY, f"--evaluate.seed={seed}")
    return {f"regions-poor-{seed}": regions_of(QUICKSTART, "poor", settings)}


def rates(
    name: str, recipe: str, settings: Sequence[str], before: Mapping[str, tuple[str, ...]] | None = None
) -> list[Cell]:
    """The learning rates that are tried, as many for each system."""
    gallery = f"--evaluate.seed={RATE_SEED}"
    others = [setting for setting in settings if not setting.startswith("--train.lr=")]
    return [
        cell(
            f"rate-{name}-{which}",
            RATE_SEED,
            recipe,
            4,
            (*others, f"--train.lr={tried}", gallery),
            before=before,
        )
        for which, tried in RATES.items()
    ]


def cell(
    way: str,
    seed: int,
    recipe: str,
    minutes: float,
    settings: Sequence[str],
    then: Mapping[str, Training] | None = None,
    measures: Mapping[str, tuple[str, ...]] | None = None,
    before: Mapping[str, tuple[str, ...]] | None = None,
) -> Cell:
    """A cell of a way and a seed."""
    return Cell(
        f"{way}-{seed}",
        recipe,
        minutes,
        (*ALONE, *settings, f"--train.seed={seed}"),
        measures or {},
        then=then or {},
        report=False,
        before=before or {},
    )


def way_and_seed(name: str) -> tuple[str, int]:
    """The way and the seed of a cell."""
    way, _, seed = name.rpartition("-")
    return way, int(seed)


def all_cells() -> list[Cell]:
    """Every cell, the most telling ones first: those of a stopped run are then the better half."""
    found = [ablation(way, seed) for seed in SEEDS for way in ABLATION]
    found += [clip(seed, times) for times in (1, 4) for seed in FINE_TUNED] + [clip(FINE_TUNED[0], 16)]
    others = [share for share in NOISE if share != USUAL_NOISE]
    found += [
        noisy(share, teacher, seed) for seed in FINE_TUNED for share in others for teacher in (True, False)
    ]
    found += [on_regions(name, seed) for seed in FINE_TUNED for name in ON_REGIONS]
    found += [at_equal_seconds(system, seed) for seed in FINE_TUNED for system in CHOSEN if system != "albef"]
    found += rates("albef", QUICKSTART, SHORT) + rates(
        "clip", CLIP, (f"--train.steps={STEPS}", *AS_LARGE, *GALLERY)
    )
    for system in ("lxmert", "uniter", "oscar"):
        one = on_regions(system, RATE_SEED)
        found += rates(system, one.recipe, one.settings, regions_in_gallery(RATE_SEED))
    return found


CELLS = all_cells()
# One seed of each way is enough to see that all of them run, and one rate of each system.
OF_ONE_SEED = [cell for cell in CELLS if cell.name.endswith((f"-{SEEDS[0]}", f"-middle-{RATE_SEED}"))]
