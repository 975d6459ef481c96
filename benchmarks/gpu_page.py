"""The section of BENCHMARKS.md on GPUs: what `make gpu` found, kept where `make bench` rewrites the rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

HEADING = "## On a GPU"
NOT_RUN = (
    "Nothing here has been run on a GPU. `make gpu` checks the training step on one, measures it within 8 minutes, and "
    "writes its figures here."
)


def section_of(page: str) -> str:
    """The section, from its heading to the next one; where there is none, one that says so."""
    if HEADING not in page:
        return f"{HEADING}\n\n{NOT_RUN}\n"
    body, _, _ = page.partition(HEADING)[2].partition("\n## ")
    return f"{HEADING}{body.rstrip()}\n"


def with_section(page: str, section: str) -> str:
    """The page with that section in the place of its own, or at its end."""
    if HEADING not in page:
        return f"{page.rstrip()}\n\n{section}"
    before, _, rest = page.partition(HEADING)
    _, following, others = rest.partition("\n## ")
    return f"{before}{section}{following}{others}"


def section(found: Mapping[str, Any]) -> str:
    """The section that the JSON file of a run stands for."""
    lines = [
        HEADING,
        "",
        f"Measured by `make gpu` on {found['date']}; no figure here is written by hand.",
        "MFU is the share of the best product: operations of the matrix products that real tokens need, in a second.",
        "",
    ]
    lines += ["| part | what | figure |", "| --- | --- | --- |"]
    for part in found["parts"]:
        rows: Sequence[tuple[str, object]] = [*part["figures"].items()]
        if part["state"] != "done":
            rows = [*rows, (part["state"], part["reason"])]
        for name, value in rows:
            lines.append(f"| {part['name']} | {name} | {f'{value:,}' if isinstance(value, int) else value} |")
    return "\n".join(lines) + "\n"
