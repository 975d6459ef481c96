"""docs/evidence.md, made of rows."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from statistics import fmean

from evidence_cells import BATCH, CHOSEN, FINE_TUNED, RATES, STEPS
from evidence_claims import CLAIMS, TASKS, Claim, Figure, Judged, figures, information, judged, noise, recalls
from evidence_plots import SYSTEMS, costs, picture, recall
from mutual_information import SIZES
from results_page import Row, Rows, percent, table
from retrieval_cost import GALLERIES
from verdicts import EQUAL, HELD, MISSING, NOT, UNKNOWN, Difference, difference, verdict

BLOCK = re.compile(r"(<!-- evidence: begin.*?-->\n).*?(<!-- evidence: end -->)", re.DOTALL)  # in README

HEAD = """# Evidence

This page answers: do the claims of the paper hold when they are tested anew, small but with seeds and intervals?
`make evidence` made it. No figure here is written by hand.

The paper says of its method: align images and texts before you fuse them, learn from hard negatives, and from a momentum
teacher. Its tables have one training each. Here each claim was tested with several seeds.

- Commit: {commit}. One version of the code computed every row.
- Machine: {machine}.
- Everything together took {hours:.1f} hours of one core. Cells ran side by side, each on one core.
- The images are drawn: see [pictograms](pictograms.md). [The glossary](glossary.md) explains the terms.
{left}
The rows behind the tables are in [evidence/rows.jsonl](../evidence/rows.jsonl).

## How is a verdict reached?
The rule was written before the run.

1. Two ways of training are compared seed by seed. Each pair of trainings has the same seed, data and number
   of steps, unless the line says otherwise.
2. The mean difference gets a 95 % interval (Student's t, of the pairs).
3. The whole interval is above 0: the claim **held**.
4. It is wholly below 0, or wholly within {equal:.0f} point of 0: the claim **did not hold**.
5. Else it **cannot be told**.

The first comparison of a claim decides about it. This was chosen beforehand too. The others are shown beside it.

This page makes {count} comparisons. Where nothing differs, one in twenty looks like a difference by chance: here about
{chance:.0f}, were there none at all.

## What can a toy tell?
A small model that sees drawings for minutes is not a large model that sees four million photographs for days. What helps
here may not help there, and what does not help here may need more data. A verdict says whether a claim held *here*.

The paper's figures are given beside ours. Those of its table 1 could not be looked up again when this was written.

Figures are percentages, and differences are in points. "Without" is what the claim calls worse, and "with" what it calls
better: a model without the part and with it, or another system and ALBEF.
"""

COMPARED = """## How do the five systems compare?
All of them saw the same {pairs:,} pairs and have as many parameters, within 5 %. ALBEF's teacher and the detector of
UNITER, OSCAR and LXMERT are not counted. Means of three seeds. A foil is a caption with one thing changed: a guess is
right in half of them. A dash: the system does not have the task.
"""

# By way: the system's name, the score that it ranks by, and how its fine-tunings are called.
SIDE_BY_SIDE = {
    "full": ("ALBEF", "sum", "-distilled"),
    "clip": ("CLIP", "itc", ""),
    "lxmert": ("LXMERT", "itm", ""),
    "uniter": ("UNITER", "itm", ""),
    "oscar": ("OSCAR", "itm", ""),
    "uniter-oracle": ("UNITER with an oracle as its detector", "itm", ""),
}

NOISE = """## From which noise on does the teacher help?
A caption is noisy if it is a list of tags, names one thing only, says something wrong, or belongs to another image. Mean
recall by ITC and ITM, three seeds.
"""

COST = """## What does a query cost?
Images are encoded beforehand. ALBEF encodes the text, compares it with all images, and matches it with the best 64. CLIP
only compares. The systems on regions match the text with every image, and their detector is not counted.

Passes and GFLOP are exact for these models. For the seconds, 20 queries were timed on one thread: a text, a match, a
comparison. All else is computed from that: nothing was timed in a gallery of a million.
"""

INFORMATION = """## How much of a caption does the model see in the image?
Two things that tell about each other share information, measured in bits. ITC's loss gives a bound of it: log K − loss,
where K is the number of captions that the right one is told among. The model shows at least so much. The bound cannot be
above log K, so few negatives cannot show much, however good the model is. That is why the paper keeps a queue.

How much the captions say is counted: one that is true of a share p of all scenes says log 1/p. Means of three seeds.
"""

TRIED = """## Which learning rates were tried?
As many for each system, with a seed and a gallery that no comparison uses. The table shows the mean recall. The rate in
bold was taken for everything else. Where it is the first or the last, one beyond it may be better still.
"""


def page(rows: Rows, names: Sequence[str]) -> str:
    """The whole page. `names` are all cells; those without a row are named."""
    found = {claim.name: list(judged(list(rows.values()), claim)) for claim in CLAIMS}
    parts = [head(rows, [name for name in names if name not in rows], sum(map(len, found.values())))]
    parts.append(summary(found))
    parts += [section(claim, found[claim.name]) for claim in CLAIMS]
    parts += [of_systems(list(rows.values())), of_noise(list(rows.values())), of_cost(list(rows.values()))]
    parts += [of_information(list(rows.values())), of_rates(list(rows.values()))]
    return "\n".join(parts)


def fill_readme(text: str, rows: Rows, names: Sequence[str]) -> str:
    """README with a line for each verdict, which names the claims; unchanged until these cells are all there."""
    if not all(name in rows for name in names):
        return text
    first = {claim.name: next(judged(list(rows.values()), claim)).verdict for claim in CLAIMS}
    lines = "".join(
        f"- {verdict.capitalize()}: {', '.join(name for name in first if first[name] == verdict) or 'none'}.\n"
        for verdict in (HELD, NOT, UNKNOWN)
    )
    return BLOCK.sub(lambda found: found[1] + lines + found[2], text)


def head(rows: Rows, missing: Sequence[str], count: int) -> str:
    """What the page is, where its figures come from, and how verdicts are reached."""
    left = f"- Not measured yet: {len(missing)} of {len(missing) + len(rows)} cells.\n" if missing else ""
    return HEAD.format(
        commit=", ".join(every(rows, "commit")),
        machine=" and ".join(dict.fromkeys(machine(row) for row in rows.values())) or "none yet",
        hours=sum(row["seconds"] for row in rows.values()) / 3600,
        left=left,
        equal=100 * EQUAL,
        count=count,
        chance=count / 20,
    )


def every(rows: Rows, name: str) -> list[str]:
    """The different values of the rows, or "none yet"."""
    return list(dict.fromkeys(str(row[name]) for row in rows.values())) or ["none yet"]


def machine(row: Row) -> str:
    """Where a row was measured."""
    return f"{row['cores']} cores of {row['cpu']}; torch {row['torch']}"


def summary(found: dict[str, list[Judged]]) -> str:
    """All claims with their verdicts."""
    lines = []
    for claim in CLAIMS:
        first = found[claim.name][0]
        lines.append([link(claim.name), claim.sentence, f"**{first.verdict}**", shown(first.found)])
    header = ["claim", "it says", "here", "difference in points"]
    return f"## Which claims held?\n{table(header, lines)}"


def link(name: str) -> str:
    """A link to a claim's section."""
    return f"[{name}](#{name.lower().replace(' ', '-')})"


def section(claim: Claim, found: Sequence[Judged]) -> str:
    """A claim, the paper's figures, ours, and why they may differ."""
    lines = [
        [
            one.comparison.what,
            percent(one.theirs),
            percent(one.ours),
            shown(one.found),
            str(one.found.pairs) if one.found else "",
            one.verdict,
        ]
        for one in found
    ]
    header = ["compared by", "without", "with", "difference in points", "seeds", "verdict"]
    return (
        f"## {claim.name}\n{claim.sentence}\n\n- The paper: {claim.paper}.\n- Here: **{found[0].verdict}**.\n"
        f"- Why they may differ: {claim.differs}\n\n{table(header, lines)}"
    )


def of_systems(rows: Sequence[Row]) -> str:
    """All systems side by side."""
    kinds, tasks = ("noun", "count", "size"), ("vqa", "nlvr", "entailment")
    lines = []
    for way, (name, score, suffix) in SIDE_BY_SIDE.items():
        wanted = [
            Figure(way, "training", f"test/{score}/{what}")
            for what in ("r_mean", *(f"foil_{k}" for k in kinds))
        ]
        wanted.insert(1, Figure(way, "retrieval" + suffix, f"test/{score}/r_mean"))
        wanted += [Figure(way, task + suffix, TASKS[task][1]) for task in tasks]
        found = [
            [value for seed, value in figures(rows, one).items() if seed in FINE_TUNED] for one in wanted
        ]
        shows = any(found)
        lines.append([name, *(percent(fmean(each)) if each else "—" * shows for each in found)])
    header = [
        "system",
        "mean recall among 500",
        "fine-tuned, among 300",
        *(f"foils of {kind}s" for kind in kinds),
        "VQA",
        "NLVR2",
        "entailment",
    ]
    return f"{COMPARED.format(pairs=STEPS * BATCH)}\n{table(header, lines)}"


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
    return f"{NOISE}\n{table(header, lines)}\n{plot}"


def of_cost(rows: Sequence[Row]) -> str:
    """What a query costs in each system, beside what it finds."""
    lines = []
    for system, found in costs(rows).items():
        for images in GALLERIES:
            passes, gflop, spent = (found[f"{images}/{unit}"] for unit in ("passes", "gflop", "seconds"))
            finds = percent(recall(rows, system))
            lines.append(
                [SYSTEMS[system], f"{images:,}", f"{passes:,.0f}", f"{gflop:,.3g}", f"{spent:,.3g}", finds]
            )
    header = ["system", "images", "passes", "GFLOP", "seconds", "mean recall among 500"]
    plot = picture("cost", "Seconds of a query by the size of the gallery") if lines else ""
    return f"{COST}\n{table(header, lines)}\n{plot}"


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
    header = ["K", "log K", "ITC", "ITC and ITM"]
    plot = picture("information", "Bits by the number of captions") if found else ""
    return f"{INFORMATION}\n{says}{table(header, lines)}\n{plot}"


def number(value: float | None) -> str:
    """A number of bits, or nothing."""
    return "" if value is None else f"{value:.1f}"


def of_rates(rows: Sequence[Row]) -> str:
    """The learning rates that were tried for each system."""
    lines = []
    for system, chosen in CHOSEN.items():
        cells = []
        for which in RATES:
            found = recalls(rows, f"rate-{system}-{which}", system)
            value = percent(next(iter(found.values()), None))
            cells.append(f"**{value}**" if value and which == chosen else value)
        lines.append([SYSTEMS[system], *cells])
    return f"{TRIED}\n{table(['system', *RATES.values()], lines)}"


def shown(found: Difference | None) -> str:
    """A difference with its interval, in points."""
    if found is None:
        return MISSING
    mean, low, high = (100 * value for value in found[:3])
    return f"{mean:+.1f} (one pair)" if found.pairs == 1 else f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
