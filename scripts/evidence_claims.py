"""The claims of the paper that are tested, the figures that decide about each, and what becomes of them.

The first comparison of a claim decides. The others are shown beside it. All of this was written before the run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, NamedTuple

from evidence_cells import CHOSEN, FINE_TUNED, NOISE, ON_REGIONS, noise_name, way_and_seed
from false_pairs import PRECISIONS, SUSPECTED_BY
from mutual_information import SIZES
from verdicts import Difference, difference, verdict

Row = dict[str, Any]
BySeed = Mapping[int, float]


class Figure(NamedTuple):
    """Where a figure is: in the cells of a way, in one of their trainings or measurements."""

    way: str
    part: str
    metric: str


class Comparison(NamedTuple):
    """What is compared: the sum of some figures with that of others, seed by seed."""

    what: str
    ours: tuple[Figure, ...]
    theirs: tuple[Figure, ...]


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and how it is tested here."""

    name: str
    sentence: str
    compared: str  # the two ways of training, in plain words
    paper: str  # its figures
    comparisons: tuple[Comparison, ...]
    differs: str  # why the paper's figures and ours may differ


class System(NamedTuple):
    """A system: its name, the way in which it is compared with the others, and the score that it ranks by."""

    name: str
    way: str
    score: str


class Judged(NamedTuple):
    """A comparison with its difference and verdict."""

    comparison: Comparison
    ours: float | None  # means over the seeds that both have; None for sums of several figures
    theirs: float | None
    found: Difference | None
    verdict: str


SYSTEMS = {
    "albef": System("ALBEF", "full", "sum"),
    "clip": System("CLIP", "clip", "itc"),
    "lxmert": System("LXMERT", "lxmert", "itm"),
    "uniter": System("UNITER", "uniter", "itm"),
    "oscar": System("OSCAR", "oscar", "itm"),
}
# By way of pre-training: the system, and how many times the usual pairs it saw.
MORE_PAIRS = {"full": ("albef", 1), "clip": ("clip", 1), "clip-4x": ("clip", 4), "clip-16x": ("clip", 16)}
RETRIEVAL = "mean recall, fine-tuned"
TASKS = {
    "retrieval": (RETRIEVAL, "test/itm/r_mean"),
    "vqa": ("VQA, accuracy", "test/accuracy"),
    "nlvr": ("NLVR2, accuracy", "test/accuracy"),
    "entailment": ("entailment, accuracy", "test/accuracy"),
}
PRETRAINED = {
    "mean recall by ITM, pre-trained": "test/itm/r_mean",
    "foils of nouns": "test/itm/foil_noun",
    "foils of counts": "test/itm/foil_count",
    "foils of sizes": "test/itm/foil_size",
}


def pretrained(ours: str, theirs: str) -> tuple[Comparison, ...]:
    """Two ways of pre-training, by what their models can do at once."""
    return tuple(
        Comparison(what, (Figure(ours, "training", metric),), (Figure(theirs, "training", metric),))
        for what, metric in PRETRAINED.items()
    )


def fine_tuned(ours: str, theirs: str, tasks: Sequence[str], suffix: str = "") -> tuple[Comparison, ...]:
    """Two ways of pre-training, by what their fine-tuned models can do. `suffix` names our way of fine-tuning."""
    return tuple(
        Comparison(
            TASKS[task][0],
            (Figure(ours, task + suffix, TASKS[task][1]),),
            (Figure(theirs, task, TASKS[task][1]),),
        )
        for task in tasks
    )


def more_at(share: float) -> Comparison:
    """What the teacher gives with this share of noisy captions, more than it gives without any."""
    metric = "test/sum/r_mean"
    with_noise, without = (
        [Figure(noise_name(one, teacher), "training", metric) for teacher in (True, False)]
        for one in (share, 0.0)
    )
    return Comparison(
        f"mean recall, {share:.0%} of the captions noisy",
        (with_noise[0], without[1]),
        (with_noise[1], without[0]),
    )


def suspected(ours: str, theirs: str, what: str) -> Comparison:
    """How precisely false pairs are found (scripts/false_pairs.py), where half of the captions are noisy."""
    way = noise_name(0.5, teacher=True)
    return Comparison(what, (Figure(way, "false-pairs", ours),), (Figure(way, "false-pairs", theirs),))


def beside(system: str, name: str) -> tuple[Comparison, ...]:
    """ALBEF beside a system on regions. Published, all of them are fine-tuned, so this decides."""
    recall = Comparison(
        f"mean recall, pre-trained, against {name}",
        (Figure("full", "training", "test/itm/r_mean"),),
        (Figure(system, "training", "test/itm/r_mean"),),
    )
    tasks = fine_tuned("full", system, ON_REGIONS[system][2], "-distilled")
    as_long = recall._replace(
        what=f"{recall.what} trained as many seconds",
        theirs=(Figure(f"{system}-seconds", "training", "test/itm/r_mean"),),
    )
    both = (recall, as_long) if system in CHOSEN else (recall,)
    return (*(one._replace(what=f"{one.what}, against {name}") for one in tasks), *both)


DOWNSTREAM = ("retrieval", "vqa", "nlvr")
SMALL = (
    "The paper had 4 M photographs, days, and texts of the web. Here a small model sees drawings for minutes."
)
CLAIMS = (
    Claim(
        "Align before fuse",
        "Contrast (ITC) before fusion makes the fused model better.",
        "With: ITC comes first, then ITM and MLM as well. Without: ITM and MLM alone, from the beginning.",
        "retrieval 91.3 → 94.1, NLVR2 77.5 → 79.9, VQA 71.4 → 73.3 (table 1)",
        (*fine_tuned("itc", "itm-mlm", DOWNSTREAM), *pretrained("itc", "itm-mlm")),
        f"{SMALL} Without ITC, matching has to find out by itself what images and words have in common. "
        "With ITC, a training begins with ITC alone here (task.align_first), as the quickstart does.",
    ),
    Claim(
        "Hard negatives",
        "Matching (ITM) learns more from negatives that ITC finds similar than from random ones.",
        "ITM needs wrong partners to tell from the right one. With: those that ITC finds similar are drawn more often. "
        "Without: any other of the batch. Neither has a teacher.",
        "retrieval 94.1 → 94.6, NLVR2 79.9 → 80.4, VQA 73.3 → 73.8 (table 1)",
        (*fine_tuned("hard", "itc", DOWNSTREAM), *pretrained("hard", "itc")),
        f"{SMALL} A batch has 128 drawings here and had 512 photographs there, so the hardest are not as hard. "
        "Negatives also end half as hard here, as in the quickstart (task.hardness_ramp).",
    ),
    Claim(
        "A teacher for ITC",
        "The teacher's soft targets make ITC better.",
        "With: other captions may be partly right for an image, as the teacher finds. "
        "Without: only the given one is right.",
        "retrieval 94.6 → 94.9, NLVR2 80.4 → 80.3, VQA 73.8 → 74.1 (table 1)",
        pretrained("distilled-itc", "hard"),
        f"{SMALL} A fifth of the captions is noisy here, in ways that we chose.",
    ),
    Claim(
        "A teacher for MLM",
        "The teacher's soft targets make the masked words (MLM) better too.",
        "With: other words may be partly right, as the teacher finds. Without: only the hidden word is right. "
        "Both have the teacher for ITC.",
        "retrieval 94.9 → 95.0, NLVR2 80.3 → 80.4, VQA 74.1 → 74.4 (table 1)",
        pretrained("full", "distilled-itc"),
        f"{SMALL} Captions of drawings have few words, and few of them could be another one.",
    ),
    Claim(
        "A teacher in pre-training",
        "Both kinds of soft targets together make the model better.",
        "With: soft targets for ITC and MLM. Without: none. Neither has a teacher in fine-tuning.",
        "retrieval 94.6 → 95.0, NLVR2 80.4 → 80.4, VQA 73.8 → 74.4 (table 1)",
        (*fine_tuned("full", "hard", DOWNSTREAM), *pretrained("full", "hard")),
        SMALL,
    ),
    Claim(
        "A teacher in fine-tuning",
        "Soft targets help in fine-tuning as well.",
        "Both begin with the same pre-trained model. With: a teacher in fine-tuning too. Without: none there.",
        "retrieval 95.0 → 95.2, NLVR2 80.4 → 80.5, VQA 74.4 → 74.5, entailment 80.1 → 80.3 (table 1)",
        fine_tuned("full", "full", (*DOWNSTREAM, "entailment"), "-distilled"),
        f"{SMALL} The labels of the fine-tuning tasks are all true here.",
    ),
    Claim(
        "The whole method",
        "All of it together is better than fusion alone.",
        "With: all parts above, also in fine-tuning. Without: ITM and MLM alone.",
        "retrieval 91.3 → 95.2, NLVR2 77.5 → 80.5, VQA 71.4 → 74.5, entailment 77.1 → 80.3 (table 1)",
        (
            *fine_tuned("full", "itm-mlm", (*DOWNSTREAM, "entailment"), "-distilled"),
            *pretrained("full", "itm-mlm"),
        ),
        SMALL,
    ),
    Claim(
        "A teacher against noise",
        "The noisier the text, the more the teacher helps.",
        "What the teacher gives with noisy captions, less what it gives where no caption is noisy. This is a difference "
        "of differences, so it has no two figures to show.",
        "said of the web's text (section 3.3), without a figure",
        (more_at(0.5), more_at(0.8)),
        "Here a known share of the captions is made noisy. The web's captions are wrong in other ways.",
    ),
    Claim(
        "A teacher knows false captions",
        "Where the teacher prefers other captions, the given one is often false.",
        "Training pairs are sorted by suspicion. The figure is the average precision: the share of false captions "
        "among those looked at. Guessing finds the share of all pairs.",
        "shown by examples (figure 2), without a figure",
        (
            suspected("teacher/average_precision", "share", "precision of the teacher, against guessing"),
            suspected("teacher/average_precision", "itc/average_precision", "the teacher, against ITC alone"),
            suspected("sum/average_precision", "itc/average_precision", "ITC and ITM, against ITC alone"),
        ),
        "Half of the captions are noisy in these trainings, and we know which of them are false.",
    ),
    Claim(
        "Fusion against contrast alone",
        "With equal pairs, fusion on top finds more than contrast alone (CLIP).",
        "With: ALBEF, which ranks by ITC and ITM. Without: CLIP, which has two encoders and ITC alone.",
        "Flickr30k text→image R@1 76.8 with 4 M images, CLIP 68.7 with 400 M (table 3)",
        (
            Comparison(
                "mean recall among 500",
                (Figure("full", "training", "test/sum/r_mean"),),
                (Figure("clip", "training", "test/itc/r_mean"),),
            ),
            Comparison(
                "mean recall among 4,000",
                (Figure("full", "gallery-4000", "test/sum/r_mean"),),
                (Figure("clip", "gallery-4000", "test/itc/r_mean"),),
            ),
            Comparison(
                f"{RETRIEVAL} (among 300)",
                (Figure("full", "retrieval-distilled", "test/sum/r_mean"),),
                (Figure("clip", "retrieval", "test/itc/r_mean"),),
            ),
            Comparison(
                "mean recall among 500, CLIP trained as many seconds",
                (Figure("full", "training", "test/sum/r_mean"),),
                (Figure("clip-seconds", "training", "test/itc/r_mean"),),
            ),
            Comparison(
                "mean recall among 500, CLIP with four times the pairs",
                (Figure("full", "training", "test/sum/r_mean"),),
                (Figure("clip-4x", "training", "test/itc/r_mean"),),
            ),
        ),
        "The paper compared with a far larger CLIP on far more data. Here both see the same pairs "
        "and have as many parameters. ALBEF's fusion takes 28 % of its parameters, so its text encoder is half of "
        "CLIP's. CLIP learns from ITC in every step. ALBEF learns three things, two of them from 40 % of its training "
        "on.",
    ),
    Claim(
        "No detector",
        "Pixels are enough: no system needs the regions of a detector.",
        "With: ALBEF, which sees pixels. Without: UNITER, OSCAR or LXMERT, which see boxes that a detector found.",
        "NLVR2 80.5, UNITER 77.9, OSCAR 78.4, LXMERT 74.5; VQA 74.5, 72.7, 73.2, 72.4 (table 4)",
        (
            *beside("uniter", "UNITER"),
            *beside("oscar", "OSCAR"),
            *beside("lxmert", "LXMERT"),
            *beside("uniter-oracle", "UNITER with an oracle as its detector"),
        ),
        "Detectors of photographs miss much. Ours sees drawings, and we chose how poor it is. "
        "Published, UNITER and OSCAR begin with a trained BERT. Here all begin with random weights. None of the three "
        "has contrast (ITC). UNITER trains one of its objectives in each step, as published, ALBEF all of them. All are "
        "fine-tuned with rates that were made for ALBEF. UNITER and OSCAR were pre-trained best with a quarter of its "
        "rate, so they may want less in fine-tuning too. Guessing gives 50 in NLVR2, and not all of them learn more. So "
        "the gap may tell less of boxes than of systems that learn slowly from random weights. Boxes do hold something: "
        "with an oracle, UNITER tells counts better than ALBEF.",
    ),
)


def figures(rows: Sequence[Row], figure: Figure) -> dict[int, float]:
    """A figure of all cells that have it, by seed."""
    found = {}
    for row in rows:
        way, seed = way_and_seed(row["cell"])
        value = row["figures"].get(figure.part, {}).get(figure.metric)
        if way == figure.way and value is not None:
            found[seed] = float(value)
    return found


def summed(rows: Sequence[Row], wanted: Sequence[Figure]) -> dict[int, float]:
    """The sum of some figures, of the seeds that have all of them."""
    each = [figures(rows, one) for one in wanted]
    seeds = set.intersection(*(set(one) for one in each))
    return {seed: sum(one[seed] for one in each) for seed in seeds}


def judged(rows: Sequence[Row], claim: Claim) -> Iterator[Judged]:
    """Every comparison of a claim with its verdict."""
    for one in claim.comparisons:
        ours, theirs = summed(rows, one.ours), summed(rows, one.theirs)
        both, found = ours.keys() & theirs.keys(), difference(ours, theirs)
        means = (fmean(each[seed] for seed in both) if both else None for each in (ours, theirs))
        first, second = means if len(one.ours) == 1 else (None, None)
        yield Judged(one, first, second, found, verdict(found))


def noise(rows: Sequence[Row], teacher: bool) -> dict[float, dict[int, float]]:
    """Mean recall by the share of noisy captions and by seed, with or without the teacher's soft targets.

    Only of the seeds that all shares were trained with.
    """
    names = {share: noise_name(share, teacher) for share in NOISE}
    return {
        share: {
            seed: value
            for seed, value in figures(rows, Figure(way, "training", "test/sum/r_mean")).items()
            if seed in FINE_TUNED
        }
        for share, way in names.items()
    }


def recall(system: str, way: str, part: str = "training") -> Figure:
    """Mean recall by the score that the system ranks by."""
    return Figure(way, part, f"test/{SYSTEMS[system].score}/r_mean")


def more_pairs(rows: Sequence[Row]) -> dict[str, tuple[list[float], list[float]]]:
    """Mean recalls by way, each of the three seeds that has them: among 500 images, and among 4,000."""
    return {
        way: (of_three(rows, recall(system, way)), of_three(rows, recall(system, way, "gallery-4000")))
        for way, (system, _) in MORE_PAIRS.items()
    }


def of_three(rows: Sequence[Row], figure: Figure) -> list[float]:
    """A figure of the three seeds that all ways of training have."""
    return [value for seed, value in figures(rows, figure).items() if seed in FINE_TUNED]


def suspects(rows: Sequence[Row], share: float) -> dict[str, float]:
    """What scripts/false_pairs.py measured with this share of noisy captions, by name; the means of the seeds."""
    way = noise_name(share, teacher=True)
    names = ["share", *(f"{by}/{what}" for by in SUSPECTED_BY for what in (*PRECISIONS, "average_precision"))]
    found = {name: of_three(rows, Figure(way, "false-pairs", name)) for name in names}
    return {name: fmean(values) for name, values in found.items() if values}


def information(rows: Sequence[Row]) -> dict[str, float]:
    """What scripts/mutual_information.py measured, by name; the means of the seeds."""
    names = ("counted", *(f"{score}/{size}" for score in ("itc", "sum") for size in SIZES))
    found = {name: figures(rows, Figure("full", "information", name)) for name in names}
    return {name: fmean(values.values()) for name, values in found.items() if values}
