"""The colours of a report on a light and on a dark page. No other place names a colour.

Text has a contrast of 4.5 : 1 at least with what is behind it, lines and bars 3 : 1 (WCAG 2.2, level AA).
"""

from __future__ import annotations

from typing import NamedTuple


class Palette(NamedTuple):
    """Colours by their role, as #rrggbb."""

    page: str
    card: str
    ink: str  # text
    soft: str  # less important text
    line: str  # borders, which carry no meaning
    good: str  # what is right: text and frames
    doubt: str  # what is doubtful or wrong: text
    blue: str  # bars, cells and the first curve
    orange: str  # the second curve
    green: str  # the third curve


LIGHT = Palette(
    page="#fbfbf9",
    card="#ffffff",
    ink="#1d2330",
    soft="#5b6577",
    line="#e3e5ea",
    good="#0b7350",
    doubt="#a34a08",
    blue="#3b82f6",
    orange="#c2560a",
    green="#0f8a5f",
)
DARK = Palette(
    page="#14171d",
    card="#1c2129",
    ink="#e8eaee",
    soft="#a3adbd",
    line="#303743",
    good="#2fc78f",
    doubt="#f0a04b",
    blue="#3f7fe8",
    orange="#f0a04b",
    green="#2fc78f",
)
CURVES = ("blue", "orange", "green")  # in the order in which a chart takes them
CELL = 0.45  # opacity of blue in the cell of the highest value
TRACK = 0.1  # opacity of blue behind a bar
MARK = 0.7  # opacity of ink in a line that marks a step of the training

# Boxes are drawn into images of any colour: each with a black edge, so that one of the two is seen.
EXPECTED, FOUND, EDGE = (61, 220, 151), (255, 167, 51), (0, 0, 0)


def css() -> str:
    """The palettes as variables of a style sheet: `--ink`, …, and `--blue-parts` to mix with an opacity."""
    return (
        f":root {{ color-scheme: light dark; --track: {TRACK}; {variables(LIGHT)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(DARK)} }} }}\n"
    )


def variables(palette: Palette) -> str:
    """The colours of a palette as declarations."""
    named = [f"--{name}: {colour};" for name, colour in palette._asdict().items()]
    parts = " ".join(map(str, rgb(palette.blue)))
    return " ".join([*named, f"--blue-parts: {parts};"])


def rgb(colour: str) -> tuple[int, int, int]:
    """Red, green and blue of #rrggbb, each 0–255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
