"""docs/results.md and README's table, made of rows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from albef.config import UserError

Row = dict[str, Any]
Rows = Mapping[str, Row]  # by the name of the cell
Figures = Mapping[str, float]

SEEDS = ("quickstart-42", "quickstart-43", "quickstart-44")
SCORES = {"itc": "ITC", "itm": "ITM", "sum": "ITC + ITM"}
FOILS = ("noun", "count", "size", "background", "location", "relation")
MAPS = {"itc": "of ITC", "itm": "of ITM", "published": "of ITM, as published"}
SWAPS = {
    "their sizes": "their sizes",
    "one is placed": 'the place of one of them ("a fox on the left")',
    "both are placed": "the places of both",
    "how they lie": "how they lie to each other",
    "the noun at a place": 'the noun of "a [MASK] on the left"',
}
BLOCK = re.compile(r"(<!-- results: begin.*?-->\n).*?(<!-- results: end -->)", re.DOTALL)

HEAD = """# Results

This page answers: how good are the models that the recipes of this repository train?
`make results` made it. No figure here is written by hand.

- Commit: {commit}. One commit computed every row.
- Machine: {machine}.
- Everything together took {hours:.1f} hours.
- All figures are percentages. Brackets hold 95 % intervals. [The glossary](glossary.md) explains the terms.
- The images are drawn: see [pictograms](pictograms.md). A gallery holds images that the model never saw in training.
{left}
The rows behind the tables are in [results/rows.jsonl](../results/rows.jsonl).
"""

QUICKSTART = """## What does the quickstart reach?

`make quickstart`: 24 nouns, 174,080 pairs, a gallery of 500 images. The table shows the mean of three seeds: 42, 43, 44.
"Lowest" and "highest" are the seeds that did worst and best. Chance is 0.2 for R@1 and 50 for foils, from "noun" on.
"""

LONGER = """## What does a longer training reach?

`albef train recipes/pictograms.yaml`: more nouns, smaller patches, five times the steps; one seed.
A gallery holds 500 images.
"""

LARGE = """With 4,000 images in the gallery, finding the right one is harder:
"""

TWO = """## Which of two things is what?

The model chooses between a caption of two things and the same caption with the two swapped. Chance is 50. A bag of words
is not enough to be right here. `scripts/two_things.py` asks this.
"""

TASKS = """## What do the small task recipes reach?

`albef train recipes/pictograms/NAME.yaml` starts from the quickstart's model (seed 42) and trains for some minutes.
Each was measured on 1,000 unseen records. "Blind" is the control: every image is replaced by another one.
"""

GROUNDED = """## How well do the maps point?

The quickstart's model (seed 42), not fine-tuned for grounding. Mean of three draws of 2,000 unseen phrases.
[How the maps are made](tasks/grounding.md#how-are-the-maps-made).

- "Pointing": the highest point of the map lies in the true box.
- "Proposals": the true box is chosen among those that are proposed.
- "Words": a word's map lies more on what the word names than on the other thing in the caption. Chance is 50.
"""

WEIGHTS = """## What do pre-trained encoders give?

`recipes/pictograms/from_pretrained.yaml` trains 150 steps from a ViT-S and a MiniLM ([how](initial-weights.md)), or the
same from random weights. A gallery holds 500 images.
"""

TIMES = """## How long did it take?

Wall-clock minutes; other programs on the machine lengthen them. A whole cell is a training, its report and all its
measurements. Pairs per second are of the training alone.
"""


def latest(rows: Iterable[Row]) -> dict[str, Row]:
    """The newest row of each cell; raises `UserError` where they are not of the same code."""
    newest = {row["cell"]: row for row in rows}
    codes = {row["code"]: row["cell"] for row in newest.values()}
    if len(codes) > 1:
        names = ", ".join(f"{cell} ({code})" for code, cell in codes.items())
        raise UserError(f"The rows are of different code: {names}. Run the same command again.")
    return newest


def page(rows: Rows, cells: Sequence[str]) -> str:
    """docs/results.md; sections whose cells have no rows are left out, and the page names these cells."""
    sections = (quickstart, longer, two_things, tasks, grounding, pretrained, times)
    parts = [
        head(rows, [name for name in cells if name not in rows]),
        *(section(rows) for section in sections),
    ]
    return "\n".join(part for part in parts if part)


def fill_readme(text: str, rows: Rows) -> str:
    """README with its table made of the rows."""
    if not all(name in rows for name in SEEDS):
        return text
    each = [figures_of(rows[cell]) for cell in SEEDS]
    lines = [
        [name, *(percent(mean([one[f"test/{score}/{way}_r1"] for one in each])) for way in ("t2i", "i2t"))]
        for score, name in SCORES.items()
    ]
    filled = table(["score", "text→image R@1", "image→text R@1"], lines)
    return BLOCK.sub(lambda found: found[1] + filled + found[2], text)


def head(rows: Rows, missing: Sequence[str]) -> str:
    """What the page is, and where its figures come from."""
    commits = dict.fromkeys(row["commit"] for row in rows.values())
    machines = dict.fromkeys(
        f"{row['cores']} cores of {row['cpu']}; torch {row['torch']}" for row in rows.values()
    )
    hours = sum(row["seconds"] for row in rows.values()) / 3600
    left = f"- Not measured yet: {', '.join(missing)}.\n" if missing else ""
    return HEAD.format(left=left, commit=", ".join(commits), machine=" and ".join(machines), hours=hours)


def quickstart(rows: Rows) -> str:
    """The mean over three seeds of the quickstart, by split and score."""
    if not all(name in rows for name in SEEDS):
        return ""
    each = [figures_of(rows[cell]) for cell in SEEDS]
    lines = []
    for split in ("test", "unseen_vendor"):
        for score, name in SCORES.items():
            t2i, i2t = ([one[f"{split}/{score}/{way}_r1"] for one in each] for way in ("t2i", "i2t"))
            cells = [split, name, *map(percent, (mean(t2i), min(t2i), max(t2i), mean(i2t)))]
            cells += [percent(mean([foil(one, split, score, kind) for one in each])) for kind in FOILS]
            lines.append(cells)
    header = ["split", "score", "text→image R@1", "lowest", "highest", "image→text R@1", *FOILS]
    return f"{QUICKSTART}\n{table(header, lines)}"


def longer(rows: Rows) -> str:
    """The longer recipe, and its large gallery."""
    if "pictograms" not in rows:
        return ""
    figures = figures_of(rows["pictograms"])
    splits = list(dict.fromkeys(name.split("/")[0] for name in figures if name.endswith("itc/t2i_r1")))
    large = rows["pictograms"]["figures"]["gallery-4000"]
    return f"{LONGER}\n{recalls(figures, splits, True)}\n{LARGE}\n{recalls(large, ['test'], False)}"


def recalls(figures: Figures, splits: Sequence[str], with_foils: bool) -> str:
    """R@1 with intervals by split and score, and foils."""
    lines = []
    for split in splits:
        for score, name in SCORES.items():
            cells = [split, name, *(interval(figures, f"{split}/{score}/{way}_r1") for way in ("t2i", "i2t"))]
            cells += [percent(foil(figures, split, score, kind)) for kind in FOILS] if with_foils else []
            lines.append(cells)
    return table(
        ["split", "score", "text→image R@1", "image→text R@1", *(FOILS if with_foils else ())], lines
    )


def two_things(rows: Rows) -> str:
    """Captions of two things against their swaps, by both models."""
    found = {
        name: rows[name]["figures"]["two-things"] for name in ("quickstart-42", "pictograms") if name in rows
    }
    if not found:
        return ""
    header = ["what is swapped", *(f"{name}, {score}" for name in found for score in ("ITC", "ITM", "MLM"))]
    scores = ("itc", "itm", "mlm")
    lines = [
        [title, *(percent(one.get(f"{swap}/{score}")) for one in found.values() for score in scores)]
        for swap, title in SWAPS.items()
    ]
    return f"{TWO}\n{table(header, lines)}"


def tasks(rows: Rows) -> str:
    """The fine-tuned tasks beside their blind controls."""
    lines = []
    if "retrieval" in rows:
        before = rows["quickstart-42"]["figures"]["retrieval"]
        for name, figures in (("before", before), ("after", figures_of(rows["retrieval"]))):
            what = f"retrieval, text→image R@1, {name} fine-tuning"
            lines.append([what, *with_blind(figures, "sum/t2i_r1")])
    for name in ("vqa", "entailment", "nlvr"):
        if name in rows:
            lines.append([f"{name}, accuracy", *with_blind(figures_of(rows[name]), "accuracy")])
    return f"{TASKS}\n{table(['task', 'with its image', 'blind'], lines)}" if lines else ""


def with_blind(figures: Figures, metric: str) -> list[str]:
    """A figure of the test split and what is left of it when images are exchanged."""
    return [interval(figures, f"test/{metric}"), interval(figures, f"test/blind/{metric}")]


def grounding(rows: Rows) -> str:
    """Maps of the quickstart's model."""
    if "quickstart-42" not in rows:
        return ""
    draws = [rows["quickstart-42"]["figures"][f"grounding-{seed}"] for seed in (1, 2, 3)]
    lines = []
    for key, name in MAPS.items():
        cells = [name]
        for metric in ("pointing", "proposals", "words"):
            for where in ("test", "test/blind"):
                values = [draw.get(f"{where}/{key}_{metric}") for draw in draws]
                cells.append(percent(mean(values)))
        lines.append(cells)
    header = [
        f"{metric}{blind}" for metric in ("pointing", "proposals", "words") for blind in ("", ", blind")
    ]
    return f"{GROUNDED}\n{table(['map', *header], lines)}"


def pretrained(rows: Rows) -> str:
    """From pre-trained encoders, and from random weights."""
    names = {"from-pretrained": "pre-trained encoders", "from-random": "random weights"}
    lines = [
        [title, name, *(interval(figures_of(rows[cell]), f"test/{score}/{way}_r1") for way in ("t2i", "i2t"))]
        for cell, title in names.items()
        if cell in rows
        for score, name in SCORES.items()
    ]
    return (
        f"{WEIGHTS}\n{table(['start', 'score', 'text→image R@1', 'image→text R@1'], lines)}" if lines else ""
    )


def times(rows: Rows) -> str:
    """What each cell took."""
    lines = []
    for name, row in rows.items():
        figures = figures_of(row)
        minutes, rate = row["seconds"] / 60, figures["train/pairs_per_second"]
        lines.append([name, f"{figures['train/steps']:.0f}", f"{figures['train/seconds'] / 60:.1f}", f"{rate:.0f}",
                      f"{minutes:.1f}", row["cpu"]])  # fmt: skip
    header = ["cell", "steps", "minutes of training", "pairs a second", "minutes in all", "CPU"]
    return f"{TIMES}\n{table(header, lines)}"


def figures_of(row: Row) -> Figures:
    """What the evaluation at the end of a training found."""
    figures: Figures = row["figures"]["training"]
    return figures


def foil(figures: Figures, split: str, score: str, kind: str) -> float | None:
    """How often the true caption is preferred to its foil; None where the split has none of the kind."""
    return figures.get(f"{split}/{score}/foil_{kind}")


def mean(values: Sequence[float | None]) -> float | None:
    """The mean; None where one of the values was not measured."""
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def percent(value: float | None) -> str:
    """A share in percent; empty where there is none."""
    return "" if value is None else f"{100 * value:.1f}"


def interval(figures: Figures, name: str) -> str:
    """A share in percent and its 95 % interval."""
    if name not in figures:
        return ""
    value, low, high = (percent(figures[f"{name}{end}"]) for end in ("", "_low", "_high"))
    return f"{value} ({low}–{high})"


def table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)
