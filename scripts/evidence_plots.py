"""The plots of docs/evidence.md, each as two SVG files: for readers with light and with dark pages."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib.figure
from evidence_cells import BATCH, NOISE, STEPS, TIMED
from evidence_claims import (
    CLAIMS,
    MORE_PAIRS,
    SYSTEMS,
    Row,
    information,
    judged,
    more_pairs,
    noise,
    of_three,
    recall,
    suspects,
)
from false_pairs import PRECISIONS, SUSPECTED_BY
from matplotlib.axes import Axes
from mutual_information import SIZES
from retrieval_cost import GALLERIES
from verdicts import EQUAL, HELD, NOT, UNKNOWN, mean_of

from albef.writing import write_whole

matplotlib.use("agg")
INKS = {"light": "#1f2328", "dark": "#e6edf3"}
COLOURS = ("#2f81f7", "#db6d28", "#3fb950", "#a371f7", "#bf8700")
DRAWN = 0.5  # the share of noisy captions whose suspects are drawn


def style(ink: str) -> dict[Any, Any]:
    """Matplotlib's settings for a page whose text has this colour."""
    inked = (
        "axes.edgecolor",
        "axes.labelcolor",
        "axes.titlecolor",
        "grid.color",
        "legend.labelcolor",
        "text.color",
    )
    return {
        **dict.fromkeys((*inked, "xtick.color", "ytick.color"), ink),
        "svg.fonttype": "none",  # text remains text
        "svg.hashsalt": "albef",  # the same rows give the same file
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.15,
        "legend.frameon": False,
        "font.size": 10,
    }


def timed(rows: Sequence[Row]) -> dict[str, Mapping[str, float]]:
    """What a query costs, by system; empty before all of them were timed in turn."""
    return next((row["figures"] for row in rows if row["cell"] == TIMED), {})


def found_by(rows: Sequence[Row], system: str) -> float | None:
    """The mean recall of a system among 500 images, over three seeds."""
    known = of_three(rows, recall(system, SYSTEMS[system].way))
    return fmean(known) if known else None


def draw_verdicts(axes: Axes, rows: Sequence[Row]) -> None:
    """The difference that decides about each claim, with its interval; of at least two seeds."""
    first = {claim.name: next(judged(rows, claim)) for claim in CLAIMS}
    axes.axvspan(-100 * EQUAL, 100 * EQUAL, color=COLOURS[4], alpha=0.2, linewidth=0)
    axes.axvline(0, color=COLOURS[4], linewidth=1)
    for verdict, colour, mark in (
        (HELD, COLOURS[2], "o"),
        (NOT, COLOURS[1], "X"),
        (UNKNOWN, COLOURS[0], "D"),
    ):
        known = {
            name: one.found
            for name, one in first.items()
            if one.verdict == verdict and one.found is not None and one.found.pairs > 1
        }
        axes.errorbar(
            [100 * found.mean for found in known.values()],
            [list(first).index(name) for name in known],
            xerr=[100 * (found.high - found.mean) for found in known.values()],
            color=colour,
            fmt=mark,
            capsize=3,
            label=verdict,
        )
    axes.set_xscale("symlog", linthresh=2)  # small differences are seen beside large ones
    ticks = (-30, -10, -3, -1, 0, 1, 3, 10, 30)
    axes.set_xticks(ticks, [f"{tick:+d}" if tick else "0" for tick in ticks])
    axes.minorticks_off()
    axes.set_yticks(range(len(first)), list(first))
    axes.set(ylim=(len(first) - 0.5, -0.5), xlabel="difference in points, with its 95 % interval")


def draw_pairs(axes: Axes, rows: Sequence[Row]) -> None:
    """Mean recall by the number of pairs: CLIP with more of them, and ALBEF."""
    found = more_pairs(rows)
    for gallery, size, line in ((0, "500", "-"), (1, "4,000", "--")):
        for system, colour, mark in (("albef", COLOURS[0], "o"), ("clip", COLOURS[1], "s")):
            points = {
                times * STEPS * BATCH: 100 * fmean(found[way][gallery])
                for way, (one, times) in MORE_PAIRS.items()
                if one == system and found[way][gallery]
            }
            label = f"{SYSTEMS[system].name}, among {size}"
            if system == "albef" and points:  # a line to compare CLIP with
                axes.axhline(next(iter(points.values())), linestyle=line, color=colour, alpha=0.5)
            axes.plot(list(points), list(points.values()), line, color=colour, marker=mark, label=label)
    axes.set(xscale="log", xlabel="pairs", ylabel="mean recall, %")
    pairs = sorted({times * STEPS * BATCH for _, times in MORE_PAIRS.values()})
    axes.set_xticks(pairs, [f"{count:,}" for count in pairs])
    axes.minorticks_off()


def draw_suspects(axes: Axes, rows: Sequence[Row]) -> None:
    """Precision by recall of the false captions, where half of the captions are noisy."""
    found = suspects(rows, DRAWN)
    for (way, by), colour, mark in zip(SUSPECTED_BY.items(), COLOURS, "osD", strict=False):
        points = {recall: found.get(f"{way}/{name}") for name, recall in PRECISIONS.items()}
        known = {100 * recall: 100 * value for recall, value in points.items() if value is not None}
        axes.plot(list(known), list(known.values()), color=colour, marker=mark, label=by)
    if "share" in found:
        axes.axhline(100 * found["share"], linestyle=":", color=COLOURS[4], label="guessing")
    axes.set(ylim=(0, 100), xlabel="false captions that are found, %", ylabel="false among those seen, %")


def draw_cost(axes: Axes, rows: Sequence[Row]) -> None:
    """Seconds of a query by the size of the gallery."""
    for (system, found), colour, mark in zip(timed(rows).items(), COLOURS, "osD^v", strict=False):
        spent = [found[f"{images}/seconds"] for images in GALLERIES]
        finds, name = found_by(rows, system), SYSTEMS[system].name
        label = name if finds is None else f"{name}: mean recall {100 * finds:.0f} %"
        axes.plot(GALLERIES, spent, color=colour, marker=mark, label=label)
    axes.set(
        xscale="log", yscale="log", xlabel="images in the gallery", ylabel="seconds of a query, one thread"
    )


def draw_noise(axes: Axes, rows: Sequence[Row]) -> None:
    """Mean recall with and without the teacher's soft targets, by the share of noisy captions."""
    for teacher, colour, mark, label, aside in (
        (True, COLOURS[0], "o", "with", 0.5),
        (False, COLOURS[1], "s", "without", -0.5),
    ):
        points = {share: mean_of(list(values.values())) for share, values in noise(rows, teacher).items()}
        known = {share: found for share, found in points.items() if found is not None and found.pairs > 1}
        axes.errorbar(
            [100 * share + aside for share in known],
            [100 * found.mean for found in known.values()],
            [100 * (found.high - found.mean) for found in known.values()],
            color=colour,
            marker=mark,
            capsize=3,
            label=f"{label} soft targets",
        )
    axes.set_xticks([100 * share for share in NOISE])
    axes.set(xlim=(-5, 100 * max(NOISE) + 5), xlabel="noisy captions, %", ylabel="mean recall, %")


def draw_information(axes: Axes, rows: Sequence[Row]) -> None:
    """The bits that images and captions have in common, by the number of captions to tell the right one among."""
    found = information(rows)
    axes.plot(
        SIZES,
        [math.log2(size) for size in SIZES],
        "--",
        color=COLOURS[4],
        label="no bound can be above log₂ K",
    )
    if "counted" in found:
        axes.axhline(
            found["counted"], linestyle=":", color=COLOURS[3], label="what the captions say, counted"
        )
    for score, label, colour, mark in (
        ("itc", "ITC", COLOURS[0], "o"),
        ("sum", "ITC and ITM", COLOURS[1], "s"),
    ):
        sizes = [size for size in SIZES if f"{score}/{size}" in found]
        axes.plot(
            sizes,
            [found[f"{score}/{size}"] for size in sizes],
            mark,
            linestyle="-",
            color=colour,
            label=label,
        )
    axes.set(xscale="log", ylim=(0, None), xlabel="K: captions, one of which is right", ylabel="bits")
    axes.set_xticks(SIZES, [f"{size:,}" for size in SIZES])
    axes.minorticks_off()


PLOTS: dict[str, Callable[[Axes, Sequence[Row]], None]] = {
    "verdicts": draw_verdicts,
    "pairs": draw_pairs,
    "suspects": draw_suspects,
    "cost": draw_cost,
    "noise": draw_noise,
    "information": draw_information,
}


def write_plots(rows: Sequence[Row], folder: Path) -> None:
    """Writes all plots into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, draw in PLOTS.items():
        for page, ink in INKS.items():
            with matplotlib.rc_context(style(ink)):
                figure = matplotlib.figure.Figure((6.4, 4.0), layout="constrained")
                axes = figure.subplots()
                draw(axes, rows)
                if axes.get_legend_handles_labels()[0]:
                    figure.legend(loc="outside upper center", ncols=2)
                text = io.StringIO()
                figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
            write_whole(folder / f"{name}-{page}.svg", text.getvalue())


def picture(name: str, shows: str) -> str:
    """A plot as Markdown takes it: the one for the reader's kind of page."""
    dark, light = (f"evidence/{name}-{page}.svg" for page in ("dark", "light"))
    return (
        f'<picture><source media="(prefers-color-scheme: dark)" srcset="{dark}">'
        f'<img alt="{shows}" src="{light}"></picture>\n'
    )
