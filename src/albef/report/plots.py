"""Curves of a run as SVG, and images with maps and boxes."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from albef import objectives
from albef.data.images import open_image
from albef.data.records import Box
from albef.engine import Grounding
from albef.report.colours import CURVES, EDGE, EXPECTED, FOUND, MARK
from albef.writing import whole_file

LogLine = dict[str, float]

# These stand for the page's colours, which depend on whether the reader's setting is light or dark.
_INK = "#010200"
_BLUE, _ORANGE, _GREEN = _COLOURS = "#010201", "#010202", "#010203"
_DASHES = dict(
    zip(_COLOURS, ("solid", (0, (5, 1.5)), (0, (1.5, 1))), strict=True)
)  # told apart without colours too
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text remains text
    "svg.hashsalt": "albef",  # the same log gives the same file
    "font.size": 10,
    "axes.edgecolor": _INK,
    "axes.labelcolor": _INK,
    "axes.titlecolor": _INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _INK,
    "grid.alpha": 0.12,
    "legend.frameon": False,
    "legend.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
}


class Panel(NamedTuple):
    """A chart: its title, the lowest and highest value that must fit, and label and colour by log key."""

    title: str
    span: tuple[float, float | None]
    series: dict[str, tuple[str, str]]


LOSSES = Panel(
    "Losses",
    (0, None),
    {name: (label, colour) for (name, label), colour in zip(objectives.LOSSES.items(), cycle(_COLOURS))},
)
INFORMATION = Panel(
    "Mutual information, lower bound (nats)",
    (0, None),
    {
        "mi_i2t": ("image → text (ITC)", _BLUE),
        "mi_t2i": ("text → image (ITC)", _ORANGE),
        "mi_mlm": ("masked words (MLM)", _GREEN),
    },
)
SHARES = Panel(
    "Shares of a batch",
    (0, 1),
    {
        "itm_accuracy": ("ITM is right", _ORANGE),
        "disagreement": ("teacher prefers another caption", _BLUE),
        "accuracy": ("right answers", _ORANGE),
        "token_accuracy": ("right tokens of the answers", _ORANGE),
    },
)


def curves(log: Sequence[LogLine], panels: Sequence[Panel]) -> str:
    """An `<svg>` with the panels side by side over the pairs seen: faint as logged, strong smoothed.

    Keys that are not in the log are left out. A vertical dashed line marks the first step with ITM or MLM. The drawing
    has a title, and a description that says how each curve begins and ends.
    """
    fuses = [line["pairs"] for line in log if "itm" in line or "mlm" in line]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
        for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
            _draw(axes, log, panel)
            if fuses and fuses[0] > log[0]["pairs"]:
                axes.axvline(fuses[0] / 1000, color=_INK, alpha=MARK, linewidth=1, linestyle=(0, (4, 3)))
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _inline(file.getvalue(), " ".join(panel_words(log, panel) for panel in panels))


def _draw(axes: Axes, log: Sequence[LogLine], panel: Panel) -> None:
    for key, (label, colour) in panel.series.items():
        points = [(line["pairs"] / 1000, line[key]) for line in log if key in line]
        if points:
            pairs, values = np.array(points).T
            axes.plot(pairs, values, color=colour, linewidth=1, alpha=0.3)
            axes.plot(
                pairs, smoothed(values), color=colour, linestyle=_DASHES[colour], linewidth=2, label=label
            )
    axes.set_title(panel.title)
    axes.set_xlabel("pairs seen (thousands)")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, panel.span[0]), high if panel.span[1] is None else max(high, panel.span[1]))
    if axes.lines:
        axes.legend(fontsize=9)


def panel_words(log: Sequence[LogLine], panel: Panel) -> str:
    """A chart in words: its title, and the first and last smoothed value of each curve."""
    said = []
    for key, (label, _) in panel.series.items():
        logged = [line[key] for line in log if key in line]
        if logged:
            values = smoothed(np.array(logged))
            said.append(f"{label} from {values[0]:.2f} to {values[-1]:.2f}")
    return f"{panel.title}: {', '.join(said)}." if said else ""


def smoothed(values: np.ndarray) -> np.ndarray:
    """The mean of each value and its neighbours: 4 % of all values, three at least."""
    width = max(1, len(values) // 50)
    window = np.ones(2 * width + 1)
    weights = np.convolve(np.ones(len(values)), window)
    return (np.convolve(values, window) / weights)[width : width + len(values)]


def _inline(svg: str, description: str) -> str:
    """The drawing as an element of an HTML page: the page's colours, a description, no fixed size, no metadata."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    for size in ("width", "height"):
        svg = re.sub(rf'(<svg [^>]*?) {size}="[^"]*"', r"\1", svg)
    for placeholder, name in zip((_INK, *_COLOURS), ("ink", *CURVES), strict=True):
        svg = svg.replace(placeholder, f"var(--{name})")
    named = (
        '<title id="curves">Curves of the training</title>'
        f'<desc id="course">{html.escape(description)}</desc>'
    )
    return (
        svg.replace("<svg", '<svg role="img" aria-labelledby="curves" aria-describedby="course"', 1)
        .replace(">", f">{named}", 1)
        .strip()
    )


def lit(image: np.ndarray, attention: np.ndarray, side: int) -> np.ndarray:
    """The image (uint8 [H, W, 3]) as a square of `side` pixels: unchanged where `attention` is 1, dark grey where 0.

    `attention` is [grid, grid], and is interpolated between the patches.
    """
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    light = cv2.resize(attention.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    grey = image.mean(2, keepdims=True) * 0.4 + 20
    shown: np.ndarray = grey + (image - grey) * light.clip(0, 1)[..., None]
    return shown.clip(0, 255).astype(np.uint8)


def boxed(image: np.ndarray, shape: tuple[int, ...], expected: Box, found: Box) -> np.ndarray:
    """The image with the expected box (thick, green) and the found one (thin, orange).

    `shape` is the [height, width] that the boxes refer to.
    """
    shown = image.copy()
    scale = np.tile([image.shape[1] / shape[1], image.shape[0] / shape[0]], 2)
    # The expected box comes first and is thicker, so that both are seen if they coincide.
    for box, colour, line in (
        (expected, EDGE, 7),
        (expected, EXPECTED, 5),
        (found, EDGE, 4),
        (found, FOUND, 2),
    ):
        left, top, width, height = (np.array(box) * scale).round().astype(int).tolist()
        cv2.rectangle(shown, (left, top), (left + width, top + height), colour, line)
    return shown


def grounding_image(path: Path, phrase: str, found: Grounding, file: Path) -> None:
    """Writes a PNG of the image: plain, with the map and box of the phrase, and with the map of each word."""
    image = open_image(path, obey_exif=True, shrink=False)
    shown = [("", None), (f"{phrase} ({found.probability:.0%})", found.map), *found.words]
    figure = Figure(figsize=(2.4 * len(shown), 2.8), layout="constrained")
    for place, (title, map_) in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), place + 1)
        axes.imshow(image)
        axes.set_title(title, fontsize=9, parse_math=False)  # a dollar sign is no formula
        axes.set_axis_off()
        if map_ is not None:
            axes.imshow(map_, cmap="jet", alpha=0.5, vmin=0, vmax=1)  # one scale for all maps
        if place == 1:
            left, top, width, height = found.box
            axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="white", linewidth=2))
    with whole_file(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
