"""docs/evidence.md, made of rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from evidence_claims import CLAIMS, Claim, Judged, judged
from evidence_plots import picture
from evidence_tables import (
    of_cost,
    of_encoders,
    of_information,
    of_noise,
    of_pairs,
    of_rates,
    of_suspects,
    of_systems,
    shown,
)
from results_page import Row, Rows, percent, table
from verdicts import EQUAL, HELD, NOT, UNKNOWN

TABLES = (of_systems, of_pairs, of_noise, of_suspects, of_cost, of_information, of_rates)
BLOCK = re.compile(r"(<!-- evidence: begin.*?-->\n).*?(<!-- evidence: end -->)", re.DOTALL)  # in README
IN_README = "[Evidence](docs/evidence.md): the paper's claims, tested with seeds"

HEAD = """# Evidence

The ALBEF paper claims that each part of its method helps. Its tables have one training each. This page tests every claim
anew, small, but with several seeds and with intervals. `make evidence` made it. No figure here is written by hand.
{left}
## What is ALBEF?
A model of images and texts. It has these parts.

- An image encoder and a text encoder turn an image and a text into a vector each. **ITC** (contrast) makes the vectors
  of an image and its caption alike, and those of others unlike. This is "align".
- A fusion encoder reads a text while it looks at an image. This is "fuse". **ITM** (matching) says whether the two
  belong together. **MLM** (masked words) fills in words that were hidden.
- A **teacher** is a slow average of the model itself. What it finds likely are **soft targets**. The model learns from
  them too, beside the captions that were given.

Such a model is pre-trained on images with captions, then fine-tuned for a task. **Retrieval** finds the image of a text,
and the text of an image. **VQA** answers questions. **NLVR2** says whether a sentence is true of two images.
**Entailment** says whether an image proves a sentence, contradicts it, or neither.

**Mean recall** is how often the right one is among the first 1, 5 and 10 that are found, averaged. A **foil** is a
caption with one thing changed: the figure is how often the true caption scores higher. Guessing gives 50.
[The glossary](glossary.md) has all terms.
"""

RULE = """## How is a verdict reached?
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

Figures are percentages, and differences are in points. "Without" is what the claim calls worse, and "with" what it calls
better: a model without the part and with it, or another system and ALBEF.

## What can a toy tell?
A small model that sees [drawings](pictograms.md) for minutes is not a large model that sees four million photographs for
days. What helps here may not help there, and what does not help here may need more data. A verdict says whether a claim
held *here*.

The paper begins with a trained ViT and BERT. Here all models begin with random weights, except in
[the last comparison](#what-if-the-encoders-are-trained-already).

The paper's figures are given beside ours. Those of its table 1 could not be looked up again when this was written.
"""

ORIGIN = """## Where do the figures come from?
- Command: `make evidence`. It goes on where it was stopped.
- Commit: {commit}. One version of the code computed every row: {code}.
- Machine: {machine}.
- Everything together took {hours:.1f} hours of one core. Cells ran side by side, each on one core.
- Rows: [evidence/rows.jsonl](../evidence/rows.jsonl), one for each pre-training and all that hangs on it.
"""


def page(rows: Rows, names: Sequence[str], encoders: Mapping[str, Any]) -> str:
    """The whole page. `names` are all cells; those without a row are counted. `encoders` is of `encoders.py`."""
    measured = list(rows.values())
    found = {claim.name: list(judged(measured, claim)) for claim in CLAIMS}
    left = sum(name not in rows for name in names)
    count = sum(map(len, found.values()))
    parts = [
        HEAD.format(
            left=f"\nNot measured yet: {left} of {left + len(rows)} cells. Verdicts may change until all are there.\n"
            if left
            else ""
        ),
        summary(found),
        RULE.format(equal=100 * EQUAL, count=count, chance=count / 20),
        *(section(claim, found[claim.name]) for claim in CLAIMS),
        *(of(measured) for of in TABLES),
        of_encoders(encoders),
        origin(rows),
    ]
    return "\n".join(parts)


def fill_readme(text: str, rows: Rows, names: Sequence[str]) -> str:
    """README with a line for each verdict, which names the claims, once all of these cells are there."""
    lines = f"{IN_README}; not all of it is measured yet.\n"
    if all(name in rows for name in names):
        first = {claim.name: next(judged(list(rows.values()), claim)).verdict for claim in CLAIMS}
        lines = f"{IN_README}, small as the quickstart.\n" + "".join(
            f"- {verdict.capitalize()}: {', '.join(name for name in first if first[name] == verdict) or 'none'}.\n"
            for verdict in (HELD, NOT, UNKNOWN)
        )
    return BLOCK.sub(lambda found: found[1] + lines + found[2], text)


def origin(rows: Rows) -> str:
    """What the figures were made with."""
    return ORIGIN.format(
        commit=", ".join(every(rows, "commit")),
        code=", ".join(every(rows, "code")),
        machine=" and ".join(dict.fromkeys(machine(row) for row in rows.values())) or "none yet",
        hours=sum(row["seconds"] for row in rows.values()) / 3600,
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
    seen = any(each[0].found is not None and each[0].found.pairs > 1 for each in found.values())
    plot = picture("verdicts", "The difference that each claim makes, with its interval") if seen else ""
    return f"## Which claims held?\n{table(header, lines)}\n{plot}"


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
        f"## {claim.name}\n{claim.sentence}\n\n{claim.compared}\n\n- The paper: {claim.paper}.\n"
        f"- Here: **{found[0].verdict}**.\n- Why they may differ: {claim.differs}\n\n{table(header, lines)}"
    )
