"""The tables of docs/evidence.md beside those of the claims, each with the sentences that explain it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from encoders import FOILS, GALLERY
from evidence_cells import BATCH, CHOSEN, NOISE, RATES, STEPS
from evidence_claims import (
    MORE_PAIRS,
    SYSTEMS,
    TASKS,
    Figure,
    figures,
    information,
    more_pairs,
    noise,
    of_three,
    recall,
    suspects,
)
from evidence_plots import DRAWN, found_by, picture, timed
from false_pairs import PRECISIONS, SUSPECTED_BY
from mutual_information import SIZES
from results_page import SCORES, Row, percent, table
from retrieval_cost import GALLERIES, three_digits
from verdicts import MISSING, Difference, difference, verdict

COMPARED = """## How do the five systems compare?
All of them saw the same {pairs:,} pairs and have as many parameters, within 5 %. ALBEF's teacher and the detector of
UNITER, OSCAR and LXMERT are not counted. Means of three seeds. A dash: the system does not have the task.
"""

# By way: the system, what its name is followed by, and how its fine-tunings are called.
SIDE_BY_SIDE = {
    "full": ("albef", "", "-distilled"),
    "clip": ("clip", "", ""),
    "lxmert": ("lxmert", "", ""),
    "uniter": ("uniter", "", ""),
    "oscar": ("oscar", "", ""),
    "uniter-oracle": ("uniter", " with an oracle as its detector", ""),
}

PAIRS = """## How much more data makes up for missing fusion?
CLIP has no fusion. It was also trained with four times the pairs (three seeds) and with sixteen times (one seed). All of
its images are new ones. ALBEF's recall is by ITC and ITM.
"""

NOISY = """## From which noise on does the teacher help?
A caption is noisy if it is a list of tags, names one thing only, says something wrong, or belongs to another image. Mean
recall by ITC and ITM, three seeds.
"""

SUSPECTED = """## Which false captions are found?
A noisy caption is false if it says something that is not in its image. Pairs are sorted by how suspicious they are. For
the teacher: by how much better it likes another caption of the batch. For ITC, and for ITC with ITM: by how low they
score.

"Half found" asks: where half of the false captions are found, what share of those looked at is false? "Guessing" is the
share of all pairs. "Mean" is the average precision. Means of three seeds.
"""

COST = """## What does a query cost?
Images are encoded beforehand. ALBEF encodes the text, compares it with all images, and matches it with the best 64. CLIP
only compares. The systems on regions match the text with every image, and their detector is not counted.

Passes and GFLOP are exact for these models. For the seconds, 20 queries were timed on one thread: a text, a match, a
comparison. The five systems took turns (`scripts/query_costs.py`). All else is computed from that: nothing was timed in
a gallery of a million.
"""

INFORMATION = """## How much of a caption does the model see in the image?
Two things that tell about each other share information, measured in bits. ITC's loss gives a bound of it: log₂ K − loss,
where K is the number of captions that the right one is told among. The model shows at least so much. The bound cannot be
above log₂ K, so few negatives cannot show much, however good the model is. That is why the paper keeps a queue.

How much the captions say is counted: one that is true of a share p of all scenes says log₂ 1/p bits. ITM reads every
caption with every image, so ITC with ITM was measured with the fewest captions alone. Means of three seeds.
"""

TRAINED_ALREADY = """## What if the encoders are trained already?
The paper begins with a trained ViT and a trained BERT. Here a model does so too, with
[a ViT-S and a MiniLM](initial-weights.md). It is trained in three ways that see the same pairs. With all losses, ITC
comes alone in the first half of the steps. There is one seed, so there is no verdict.
"""
OF_ENCODERS = """Command: `make weights; python scripts/encoders.py {given}`. Measured on one {device},
with the code {code}, the three side by side: {steps:,} steps of {batch_size} pairs in
{shortest:.0f} to {longest:.0f} seconds. The trained weights were rounded to bf16. Guessing gives a mean recall of
{chance:.1f}, and 50 for foils. On a CPU this would take hours: in a quarter of an hour,
[matching learns nothing](results.md#what-do-pre-trained-encoders-give).
"""
ENCODER_WAYS = {"full": "all losses", "itc": "ITC alone", "itm-mlm": "ITM and MLM, without ITC"}

TRIED = """## Which learning rates were tried?
As many for each system, with a seed and a gallery that no comparison uses. The table shows the mean recall. The rate in
bold was taken for everything else. Where it is the first or the last, one beyond it may be better still.

Two things favour ALBEF with all of its parts. Its own rate was taken for all rows with a part less. And all systems are
fine-tuned with the rates of our recipes, which were made for ALBEF.
"""


def of_systems(rows: Sequence[Row]) -> str:
    """All systems side by side."""
    tasks = "vqa", "nlvr", "entailment"
    lines = []
    for way, (system, with_what, suffix) in SIDE_BY_SIDE.items():
        name, _, score = SYSTEMS[system]
        wanted = [recall(system, way), recall(system, way, "retrieval" + suffix)]
        wanted += [Figure(way, "training", f"test/{score}/foil_{kind}") for kind in FOILS]
        wanted += [Figure(way, task + suffix, TASKS[task][1]) for task in tasks]
        found = [of_three(rows, one) for one in wanted]
        shows = any(found)
        lines.append([name + with_what, *(percent(fmean(each)) if each else "—" * shows for each in found)])
    header = [
        "system",
        "mean recall among 500",
        "fine-tuned, among 300",
        *(f"foils of {kind}s" for kind in FOILS),
        "VQA",
        "NLVR2",
        "entailment",
    ]
    return f"{COMPARED.format(pairs=STEPS * BATCH)}\n{table(header, lines)}"


def of_pairs(rows: Sequence[Row]) -> str:
    """What CLIP finds with more pairs, beside ALBEF."""
    found = more_pairs(rows)
    lines = []
    for way, (system, times) in MORE_PAIRS.items():
        means = (percent(fmean(each) if each else None) for each in found[way])
        lines.append(
            [SYSTEMS[system].name, f"{times * STEPS * BATCH:,}", *means, str(len(found[way][0]) or "")]
        )
    header = ["system", "pairs", "mean recall among 500", "among 4,000", "seeds"]
    plot = picture("pairs", "Mean recall by the number of pairs") if any(map(any, found.values())) else ""
    return f"{PAIRS}\n{table(header, lines)}\n{enough(found)}\n{plot}"


def enough(found: Mapping[str, tuple[list[float], list[float]]]) -> str:
    """From how many pairs on CLIP finds as much among 500 images as ALBEF; nothing while ALBEF has no figure."""
    means = {way: fmean(among) for way, (among, _) in found.items() if among}
    if "full" not in means:
        return ""
    reached = [
        times
        for way, (system, times) in MORE_PAIRS.items()
        if system == "clip" and means.get(way, 0.0) >= means["full"]
    ]
    if not reached:
        return "CLIP finds less with all of them.\n"
    if reached[0] == 1:
        return "Here nothing has to be made up for: CLIP finds more with as many pairs.\n"
    return f"CLIP finds as much with {reached[0]} times the pairs.\n"


def of_noise(rows: Sequence[Row]) -> str:
    """What the teacher gives, by the share of noisy captions."""
    with_it, without = noise(rows, teacher=True), noise(rows, teacher=False)
    lines = []
    for share in with_it:
        found = difference(with_it[share], without[share])
        means = (percent(fmean(each.values()) if each else None) for each in (without[share], with_it[share]))
        lines.append([f"{share:.0%}", *means, shown(found), verdict(found)])
    header = ["noisy captions", "without", "with", "difference in points", "the teacher helps"]
    plot = picture("noise", "Mean recall by the share of noisy captions") if any(with_it.values()) else ""
    return f"{NOISY}\n{table(header, lines)}\n{plot}"


def of_suspects(rows: Sequence[Row]) -> str:
    """How precisely false captions are found, by the share of noisy captions."""
    lines = []
    by_share = {share: suspects(rows, share) for share in NOISE if share}
    for share, found in by_share.items():
        for way, by in SUSPECTED_BY.items():
            values = [found.get(f"{way}/{name}") for name in (*PRECISIONS, "average_precision")]
            lines.append([f"{share:.0%}", by, *map(percent, (found.get("share"), *values))])
    at = [f"{recall:.0%} found" if recall != 0.5 else "half found" for recall in PRECISIONS.values()]
    header = ["noisy captions", "suspected by", "guessing", *at, "mean"]
    plot = picture("suspects", "Precision by the share of false captions that are found")
    return f"{SUSPECTED}\n{table(header, lines)}\n{plot if by_share[DRAWN] else ''}"


def of_cost(rows: Sequence[Row]) -> str:
    """What a query costs in each system, beside what it finds."""
    lines = []
    for system, found in timed(rows).items():
        for images in GALLERIES:
            passes, gflop, spent = (found[f"{images}/{unit}"] for unit in ("passes", "gflop", "seconds"))
            name, finds = SYSTEMS[system].name, percent(found_by(rows, system))
            lines.append(
                [name, f"{images:,}", f"{passes:,.0f}", three_digits(gflop), three_digits(spent), finds]
            )
    header = ["system", "images", "passes", "GFLOP", "seconds", "mean recall among 500"]
    plot = picture("cost", "Seconds of a query by the size of the gallery")
    return f"{COST}\n{table(header, lines)}\n{plot}" if lines else f"{COST}\n{MISSING.capitalize()}.\n"


def of_information(rows: Sequence[Row]) -> str:
    """The bound of the mutual information by K, beside what the captions say."""
    found = information(rows)
    lines = [
        [
            f"{size:,}",
            f"{math.log2(size):.1f}",
            *(number(found.get(f"{score}/{size}")) for score in ("itc", "sum")),
        ]
        for size in SIZES
    ]
    says = f"The captions say {number(found['counted'])} bits.\n\n" if "counted" in found else ""
    header = ["K", "log₂ K", "ITC", "ITC and ITM"]
    plot = picture("information", "Bits by the number of captions") if found else ""
    return f"{INFORMATION}\n{says}{table(header, lines)}\n{plot}"


def of_encoders(found: Mapping[str, Any]) -> str:
    """The three trainings from trained encoders, as `encoders.py` wrote them; nothing but the question without them."""
    if not found:
        return f"{TRAINED_ALREADY}\n{MISSING.capitalize()}.\n"
    lines = []
    for way, name in ENCODER_WAYS.items():
        of_way = found["ways"][way]
        for score, ranked_by in SCORES.items():
            wanted = ["r_mean", *(f"foil_{kind}" for kind in FOILS)]
            each = [of_way.get(f"test/{score}/{one}") for one in wanted]
            if each[0] is not None:
                lines.append([name, ranked_by, *map(percent, each)])
    names = [f"foils of {kind}s" for kind in FOILS]
    header = ["trained with", "ranked by", f"mean recall among {GALLERY}", *names]
    seconds = [of_way["train/seconds"] for of_way in found["ways"].values()]
    text = OF_ENCODERS.format(
        given=" ".join([f"--steps {found['steps']}", *found["settings"]]),
        device=found["device"],
        code=found["code"],
        steps=found["steps"],
        batch_size=found["batch_size"],
        shortest=min(seconds),
        longest=max(seconds),
        chance=100 * fmean(first / GALLERY for first in (1, 5, 10)),
    )
    return f"{TRAINED_ALREADY}\n{table(header, lines)}\n{text}"


def number(value: float | None) -> str:
    """A number of bits, or nothing."""
    return "" if value is None else f"{value:.1f}"


def of_rates(rows: Sequence[Row]) -> str:
    """The learning rates that were tried for each system."""
    lines = []
    for system, chosen in CHOSEN.items():
        cells = []
        for which in RATES:
            found = figures(rows, recall(system, f"rate-{system}-{which}"))
            value = percent(next(iter(found.values()), None))
            cells.append(f"**{value}**" if value and which == chosen else value)
        lines.append([SYSTEMS[system].name, *cells])
    return f"{TRIED}\n{table(['system', *RATES.values()], lines)}"


def shown(found: Difference | None) -> str:
    """A difference with its interval, in points."""
    if found is None:
        return MISSING
    mean, low, high = (100 * value for value in found[:3])
    return f"{mean:+.1f} (one pair)" if found.pairs == 1 else f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
