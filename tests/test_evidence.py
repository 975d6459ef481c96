"""The evidence runner: its cells can be trained, its claims read figures that are there, and its page says what held."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import cells
import evidence
import evidence_cells
import evidence_claims
import paces
import pytest
from cells import read_rows, run_cells
from evidence_cells import CELLS, OF_ONE_SEED, SEEDS, TIMED, way_and_seed
from evidence_claims import CLAIMS, MORE_PAIRS, SYSTEMS, Claim, Comparison, Figure, judged, of_three
from evidence_page import fill_readme, page
from evidence_plots import INKS, PLOTS, write_plots
from evidence_tables import enough, of_encoders
from false_pairs import PRECISIONS
from results_page import latest
from retrieval_cost import GALLERIES
from verdicts import HELD, MISSING, NOT, UNKNOWN

from albef.recipe import load_recipe
from albef.systems import build_task


def trainings() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Every training of every cell by name: its recipe and settings."""
    found = {}
    for cell in CELLS:
        found[cell.name] = (cell.recipe, cell.settings)
        found |= {f"{cell.name}.{name}": (one.recipe, one.settings) for name, one in cell.then.items()}
    return found


TRAININGS = trainings()


def test_names_of_cells_are_unique_and_tell_way_and_seed() -> None:
    assert len({cell.name for cell in CELLS}) == len(CELLS)
    once = {way_and_seed(cell.name)[0] for cell in OF_ONE_SEED}
    others = {way_and_seed(cell.name)[0] for cell in CELLS} - once
    assert all(way.startswith("rate-") for way in others)
    assert len(once) == len(OF_ONE_SEED)


def test_every_recipe_accepts_its_settings_and_has_the_seed_of_its_cell() -> None:
    for name, (recipe, settings) in TRAININGS.items():
        config = load_recipe(cells.ROOT / recipe, settings)
        assert config.train.seed == way_and_seed(name.split(".")[0])[1]
        assert config.train.batch_size == evidence_cells.BATCH or "." in name


def test_ways_of_the_ablation_differ_in_what_their_names_say() -> None:
    configs = {
        way: load_recipe(cells.ROOT / TRAININGS[f"{way}-1"][0], TRAININGS[f"{way}-1"][1])
        for way in ("itm-mlm", "itc", "hard", "distilled-itc", "full")
    }
    everything = configs["full"].task
    assert everything.losses == ("itc", "itm", "mlm")
    for one, other in (("itc", "hard"), ("hard", "distilled-itc"), ("distilled-itc", "full")):
        mine, theirs = (dataclasses.asdict(configs[way]) for way in (one, other))
        changed = [f"{s}.{k}" for s in mine for k in mine[s] if mine[s][k] != theirs[s][k]]
        assert changed == (["task.hardness"] if one == "itc" else ["task.distill"])
    assert configs["itm-mlm"].task.losses == ("itm", "mlm")
    assert not build_task(configs["itm-mlm"]).student.can_contrast


def test_no_seed_of_a_claim_was_used_to_choose_a_learning_rate() -> None:
    for cell in CELLS:
        way, seed = way_and_seed(cell.name)
        assert (seed in SEEDS) != way.startswith("rate-")


def test_choosing_a_learning_rate_changes_no_trial() -> None:
    for cell in CELLS:
        if cell.name.startswith("rate-"):
            assert sum(setting.startswith("--train.lr=") for setting in cell.settings) == 1


def test_figures_of_claims_are_of_parts_that_cells_have() -> None:
    parts = {
        way_and_seed(cell.name)[0]: {"training", *cell.then, *cell.measures} for cell in reversed(CELLS)
    }  # of the first seed, which has most
    for claim in CLAIMS:
        for one in claim.comparisons:
            for figure in (*one.ours, *one.theirs):
                assert figure.part in parts[figure.way], figure


def row(name: str, value: float) -> dict[str, Any]:
    return {"cell": name, "figures": {"training": {"x": value}}}


def test_a_comparison_is_paired_by_seed_and_sums_its_figures() -> None:
    rows = [row("a-1", 0.5), row("a-2", 0.7), row("b-1", 0.4), row("b-2", 0.5), row("b-3", 0.0)]
    a, b = (Figure(way, "training", "x") for way in "ab")
    claim = Claim("", "", "", "", (Comparison("", (a,), (b,)), Comparison("", (a, a), (b, b))), "")
    first, second = judged(rows, claim)
    assert first.found is not None
    assert second.found is not None
    assert (first.found.mean, first.found.pairs) == (pytest.approx(0.15), 2)
    assert second.found.mean == pytest.approx(0.3)


README = "# Name\n<!-- evidence: begin (made) -->\n- old\n<!-- evidence: end -->\nMore.\n"


def test_the_page_says_of_each_claim_what_came_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, c = (Figure(way, "training", "x") for way in "abc")
    claims = tuple(
        Claim(
            name,
            f"{name} is so.",
            "Both.",
            "1 → 2",
            (Comparison("accuracy", (ours,), (theirs,)),),
            "Drawings.",
        )
        for name, ours, theirs in (
            ("Up", a, b),
            ("Down", b, a),
            ("Unclear", a, c),
            ("Later", a, Figure("d", "", "")),
        )
    )
    for module in (evidence_claims, __import__("evidence_page")):
        monkeypatch.setattr(module, "CLAIMS", claims)
    values = {"a": (0.6, 0.7, 0.8), "b": (0.5, 0.61, 0.69), "c": (0.2, 0.9, 0.7)}
    rows = {
        f"{way}-{seed}": row(f"{way}-{seed}", value)
        | {"commit": "abc", "code": "f", "cores": 2, "cpu": "a CPU", "torch": "2", "seconds": 1800.0}
        for way, each in values.items()
        for seed, value in enumerate(each, 1)
    }
    text = page(rows, [*rows, "d-1"], {})
    for name, said in (("Up", HELD), ("Down", NOT), ("Unclear", UNKNOWN), ("Later", MISSING)):
        assert f"[{name}](#{name.lower()}) | {name} is so. | **{said}** |" in text
        assert f"## {name}\n{name} is so.\n\nBoth.\n\n- The paper: 1 → 2.\n- Here: **{said}**." in text
    assert "| accuracy | 60.0 | 70.0 | +10.0 (+7.5 to +12.5) | 3 | held |" in text
    assert "Not measured yet: 1 of 10 cells." in text
    assert "evidence/verdicts-light.svg" in text
    assert "took 4.5 hours" in text
    assert "One version of the code computed every row: f." in text
    assert "- old" not in fill_readme(README, rows, [*rows, "d-1"])
    assert "not all of it is measured yet" in fill_readme(README, rows, [*rows, "d-1"])
    monkeypatch.setattr("evidence_page.CLAIMS", claims[:3])
    assert fill_readme(README, rows, list(rows)).splitlines()[2:6] == [
        "[Evidence](docs/evidence.md): the paper's claims, tested with seeds, small as the quickstart.",
        "- Held: Up.",
        "- Did not hold: Down.",
        "- Cannot be told: Unclear.",
    ]
    assert fill_readme("no block", rows, list(rows)) == "no block"


def test_plots_are_the_same_for_the_same_rows_and_drawn_for_light_and_dark_pages(tmp_path: Path) -> None:
    rows = [
        {"cell": f"{way}-{seed}", "figures": {"training": {"test/sum/r_mean": 0.1 * seed}}}
        for way in ("full", "hard", "noise-50-full", "noise-50-hard")
        for seed in (1, 2, 3)
    ]
    spent = {f"{images}/seconds": images / 1e4 for images in GALLERIES}
    rows.append({"cell": TIMED, "figures": {"albef": spent}})
    rows[0]["figures"]["information"] = {"counted": 10.5, "itc/128": 5.0, "itc/1000": 6.0, "sum/128": 5.5}
    for folder in ("a", "b"):
        write_plots(rows, tmp_path / folder)
    names = [f"{plot}-{page}.svg" for plot in sorted(PLOTS) for page in ("dark", "light")]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == names
    for name in names:
        text = (tmp_path / "a" / name).read_text()
        assert text == (tmp_path / "b" / name).read_text()
        assert (INKS["dark"] in text) == ("dark" in name)
    assert "ALBEF" in (tmp_path / "a" / "cost-light.svg").read_text()
    write_plots([], tmp_path / "nothing")  # without a word about an empty legend


def test_all_that_is_measured_beside_the_claims_has_a_table() -> None:
    rows = {
        f"{way}-{seed}": {
            "cell": f"{way}-{seed}",
            "figures": {"training": {"test/sum/r_mean": value + 0.01 * seed, "test/itm/r_mean": 0.4}},
            **{"commit": "abc", "code": "f", "cores": 2, "cpu": "a CPU", "torch": "2", "seconds": 1800.0},
        }
        for way, value in (("full", 0.5), ("hard", 0.3))
        for seed in (1, 2, 3)
    }
    rows["rate-albef-middle-9"] = rows["full-3"] | {"cell": "rate-albef-middle-9"}
    cost = {
        f"{images}/{unit}": images / 2e3 for images in GALLERIES for unit in ("passes", "gflop", "seconds")
    }
    rows[TIMED] = rows["hard-1"] | {"cell": TIMED, "figures": {"albef": cost}}
    rows["full-1"]["figures"]["information"] = {"counted": 10.52, "itc/1000": 6.04, "itc/128": 5.0}
    rows["full-2"]["figures"]["information"] = {"counted": 10.5, "itc/128": 5.2, "sum/128": 5.5}
    rows["clip-1"] = rows["hard-1"] | {"cell": "clip-1", "figures": {"training": {"test/itc/r_mean": 0.25}}}
    rows["clip-1"]["figures"]["gallery-4000"] = {"test/itc/r_mean": 0.125}
    found = {f"itc/{name}": 0.01 * (90 - 10 * at) + 0.01 * (at == 4) for at, name in enumerate(PRECISIONS)}
    rows["noise-50-full-1"] = rows["hard-1"] | {
        "cell": "noise-50-full-1",
        "figures": {"false-pairs": found | {"share": 0.3, "itc/average_precision": 0.75}},
    }
    rows["full-2"]["figures"]["vqa-distilled"] = {"test/accuracy": 0.7}
    text = page(rows, list(rows), {})
    assert "| ALBEF | 52.0 | — | — | — | — | 70.0 | — | — |" in text
    assert "| CLIP | 25.0 | — | — | — | — | — | — | — |" in text
    assert "| UNITER |  |  |  |  |  |  |  |  |" in text
    assert "The captions say 10.5 bits." in text
    assert "| 128 | 7.0 | 5.1 | 5.5 |" in text
    assert "| 1,000 | 10.0 | 6.0 |  |" in text
    assert "| 50% | ITC | 30.0 | 90.0 | 80.0 | 70.0 | 60.0 | 51.0 | 75.0 |" in text
    assert "| 80% | ITC |  |  |  |  |  |  |  |" in text
    assert "| CLIP | 87,040 | 25.0 | 12.5 | 1 |" in text
    assert "| CLIP | 1,392,640 |  |  |  |" in text
    assert text.count("<picture>") == 5  # of verdicts there is none to see yet
    assert "| 20% | 32.0 | 52.0 | +20.0 (+20.0 to +20.0) | held |" in text
    assert f"| 50% |  |  | {MISSING} | {MISSING} |" in text
    assert "| ALBEF | 10,000 | 5 | 5 | 5 | 52.0 |" in text
    assert "| ALBEF |  |  | **53.0** |  |" in text


@pytest.mark.parametrize(
    ("by_way", "says"),
    [
        ({}, ""),
        ({"full": 0.5}, "less with all"),
        ({"full": 0.5, "clip": 0.4, "clip-4x": 0.45}, "less with all"),
        ({"full": 0.5, "clip": 0.4, "clip-4x": 0.5, "clip-16x": 0.6}, "with 4 times the pairs"),
        ({"full": 0.5, "clip": 0.6, "clip-4x": 0.7}, "nothing has to be made up for"),
    ],
)
def test_from_how_many_pairs_on_contrast_alone_finds_as_much(by_way: dict[str, float], says: str) -> None:
    found = {way: ([by_way[way]] if way in by_way else [], []) for way in MORE_PAIRS}
    assert (says in enough(found)) if says else not enough(found)


def test_trainings_from_trained_encoders_are_shown_by_each_score() -> None:
    of_itc = {"test/itc/r_mean": 0.5, "test/itc/foil_noun": 0.75, "train/seconds": 100.0}
    of_itm = {"test/itm/r_mean": 0.25, "test/itm/foil_size": 1.0, "train/seconds": 140.0}
    ways = {"full": of_itc | of_itm, "itc": of_itc, "itm-mlm": of_itm}
    text = of_encoders(
        {"steps": 1300, "batch_size": 64, "settings": ["--a=b"], "device": "GPU", "code": "f0", "ways": ways}
    )
    assert "| all losses | ITC | 50.0 | 75.0 |  |  |" in text
    assert "| all losses | ITM | 25.0 |  |  | 100.0 |" in text
    assert "| ITC alone | ITC | 50.0 | 75.0 |  |  |" in text
    assert text.count("| ITM |") == 2
    told = text.replace("\n", " ")
    assert "`make weights; python scripts/encoders.py --steps 1300 --a=b`" in told
    assert (
        "on one GPU, with the code f0, the three side by side: 1,300 steps of 64 pairs in 100 to 140 seconds"
        in told
    )
    assert "mean recall of 1.1" in told


def test_page_and_readme_are_made_of_the_rows() -> None:
    rows = latest(read_rows(evidence.ROWS))
    encoders = json.loads(evidence.ENCODERS.read_text("utf-8"))
    assert evidence.PAGE.read_text("utf-8") == page(rows, evidence.NAMES, encoders)
    readme = evidence.README.read_text("utf-8")
    assert fill_readme(readme, rows, evidence.NAMES) == readme
    assert set(rows) <= {*evidence.NAMES, TIMED}


def test_make_evidence_goes_on_beside_rows_that_are_no_trainings(tmp_path: Path) -> None:
    rows, said = tmp_path / "rows.jsonl", list[str]()
    rows.write_text(json.dumps({"cell": TIMED, "code": "a"}) + "\n")
    run_cells([], rows, tmp_path, quick=True, say=said.append)
    assert said == ["0 of 0 cells are done; 0 take about 0 minutes."]


def test_queries_timed_with_other_code_than_the_trainings_do_not_count() -> None:
    timed, old, new = (
        {"cell": TIMED, "code": "a"},
        {"cell": "full-1", "code": "a"},
        {"cell": "full-1", "code": "b"},
    )
    assert evidence.of_one_code([old, timed]) == [old, timed]
    assert evidence.of_one_code([old, timed, new]) == [old, new]
    assert evidence.of_one_code([]) == []


def test_what_the_page_says_of_boxes_is_so() -> None:
    rows = list(latest(read_rows(evidence.ROWS)).values())

    def mean(way: str, measured: str, name: str) -> float:
        return fmean(of_three(rows, Figure(way, measured, name)))

    of_oracle = mean("uniter-oracle", "training", f"test/{SYSTEMS['uniter'].score}/foil_count")
    assert of_oracle > mean("full", "training", f"test/{SYSTEMS['albef'].score}/foil_count")
    assert max(mean(way, "nlvr", "test/accuracy") for way in ("uniter", "lxmert")) < 0.55  # guessing: 0.5
    assert "tells counts better than ALBEF" in CLAIMS[-1].differs


def test_a_page_of_nothing_says_so() -> None:
    text = page({}, ["full-1"], {})
    assert "Not measured yet: 1 of 1 cells." in text
    assert "<picture>" not in text  # there is nothing to see
    assert text.count(f"**{MISSING}**") == 2 * len(CLAIMS)


# As learned from captions of the recipes: CLIP's byte pairs, and word pieces.
VOCABULARY = {"clip": 640, "others": 343}


def test_all_systems_have_as_many_parameters() -> None:
    """What is trained in pre-training, without the teacher and the detector: within 5 % of ALBEF's."""
    found = {}
    for way in ("full", "clip", "lxmert", "uniter", "oscar"):
        config = load_recipe(cells.ROOT / TRAININGS[f"{way}-1"][0], TRAININGS[f"{way}-1"][1])
        size = VOCABULARY["clip" if way == "clip" else "others"]
        model = dataclasses.replace(config.model, vocab_size=size)
        student = build_task(dataclasses.replace(config, model=model)).student
        found[way] = sum(parameter.numel() for parameter in student.parameters())
    assert all(abs(count / found["full"] - 1) < 0.05 for count in found.values()), found


def test_systems_train_for_as_long_as_albef(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "paces.json"
    monkeypatch.setattr(evidence_cells, "ROOT", tmp_path)
    monkeypatch.setattr(evidence_cells, "PACES", file)
    assert evidence_cells.at_equal_seconds("clip", 1).needs == ("paces.json",)
    file.write_text(
        '{"seconds_a_step": {"albef": 0.3, "clip": 0.1, "uniter": 0.6, "lxmert": 0.2, "oscar": 1}}'
    )
    for system, steps in (("clip", 2040), ("uniter", 340), ("lxmert", 1020)):
        found = evidence_cells.at_equal_seconds(system, 1)
        assert f"--train.steps={steps}" in found.settings
        # Regions are made once for all trainings of a seed, so for the longest.
        assert all("--train.steps=1020" in command for command in found.before.values())
    regions = evidence_cells.on_regions("uniter", 1).before["regions-poor-1"]
    assert regions == evidence_cells.at_equal_seconds("oscar", 1).before["regions-poor-1"]


def test_steps_are_timed_in_turn_and_of_all_systems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[str] = []

    def call(command: list[str], log: Path, name: str) -> None:
        if "--out" in command:
            run = Path(command[command.index("--out") + 1])
            run.mkdir(parents=True)
            trained.append(name)
            taken = {"train/seconds": 10.0 * len(trained), "train/steps": 10}
            (run / "metrics.json").write_text(json.dumps(taken))

    monkeypatch.setattr(paces, "call", call)
    found = paces.measured(tmp_path, rounds=3, steps=10)
    assert trained == 3 * ["albef", "clip", "lxmert", "uniter", "oscar"]
    assert found == {"albef": 6.0, "clip": 7.0, "lxmert": 8.0, "uniter": 9.0, "oscar": 10.0}
