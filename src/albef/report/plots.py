"""Curves of a run as SVG, and pictures lit where a word looks."""

from __future__ import annotations

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
from albef.writing import whole_file

LogLine = dict[str, float]

_INK = "#010203"  # replaced by the page's text colour, which depends on the reader's light or dark setting
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
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
_BLUE, _ORANGE, _GREEN = _COLORS = "#3b82f6", "#f08c1a", "#17a673"


class Panel(NamedTuple):
    """One pair of axes: title, the lowest and highest value that must fit, label and colour by log key."""

    title: str
    span: tuple[float, float | None]
    series: dict[str, tuple[str, str]]


LOSSES = Panel(
    "Losses",
    (0, None),
    {name: (label, color) for (name, label), color in zip(objectives.LOSSES.items(), cycle(_COLORS))},
)
INFORMATION = Panel(
    "Mutual information, at least (nats)",
    (0, None),
    {
        "mi_i2t": ("of a text, in its image", _BLUE),
        "mi_t2i": ("of an image, in its text", _ORANGE),
        "mi_mlm": ("of a masked word, in the rest", _GREEN),
    },
)
SHARES = Panel(
    "Shares",
    (0, 1),
    {
        "itm_accuracy": ("matching pairs told apart", _ORANGE),
        "disagreement": ("teacher prefers another caption", _BLUE),
        "accuracy": ("right in the batch", _ORANGE),
        "token_accuracy": ("tokens of answers right", _ORANGE),
    },
)


def curves(log: Sequence[LogLine], panels: Sequence[Panel]) -> str:
    """An `<svg>` with the panels side by side over the pairs seen; faint as logged, strong smoothed.

    Keys that no line of the log has are left out. A dashed line marks where the fusion encoder joined in.
    """
    fuses = [line["pairs"] for line in log if "itm" in line or "mlm" in line]
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4 * len(panels), 3), layout="constrained")
        for axes, panel in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
            _draw(axes, log, panel)
            if fuses and fuses[0] > log[0]["pairs"]:
                axes.axvline(fuses[0] / 1000, color=_INK, alpha=0.5, linewidth=1, linestyle=(0, (4, 3)))
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _inline(file.getvalue())


def _draw(axes: Axes, log: Sequence[LogLine], panel: Panel) -> None:
    for key, (label, colour) in panel.series.items():
        points = [(line["pairs"] / 1000, line[key]) for line in log if key in line]
        if points:
            pairs, values = np.array(points).T
            axes.plot(pairs, values, color=colour, linewidth=1, alpha=0.3)
            axes.plot(pairs, smoothed(values), color=colour, linewidth=2, label=label)
    axes.set_title(panel.title)
    axes.set_xlabel("pairs seen (thousands)")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, panel.span[0]), high if panel.span[1] is None else max(high, panel.span[1]))
    if axes.lines:
        axes.legend(fontsize=9)


def smoothed(values: np.ndarray) -> np.ndarray:
    """The mean of each value and its neighbours: 4 % of all of them, three at least."""
    width = max(1, len(values) // 50)
    window = np.ones(2 * width + 1)
    weights = np.convolve(np.ones(len(values)), window)
    return (np.convolve(values, window) / weights)[width : width + len(values)]


def _inline(svg: str) -> str:
    """The drawing as an element of an HTML page: no prologue, no metadata, no fixed size, the page's ink."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href", "href")
    for size in ("width", "height"):
        svg = re.sub(rf'(<svg [^>]*?) {size}="[^"]*"', r"\1", svg)
    return svg.replace(_INK, "currentColor").strip()


def lit(image: np.ndarray, attention: np.ndarray, side: int) -> np.ndarray:
    """The picture (uint8 [H, W, 3]), `side` pixels a side: itself where `attention` is 1, dim grey where 0.

    `attention` is [grid, grid] and is smoothed between the patches.
    """
    image = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC).astype(np.float32)
    light = cv2.resize(attention.astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC)
    grey = image.mean(2, keepdims=True) * 0.4 + 20
    shown: np.ndarray = grey + (image - grey) * light.clip(0, 1)[..., None]
    return shown.clip(0, 255).astype(np.uint8)


def boxed(image: np.ndarray, shape: tuple[int, ...], expected: Box, found: Box) -> np.ndarray:
    """The picture, which was [height, width] = `shape`, with the expected box in green and the found one in orange."""
    shown = image.copy()
    scale = np.tile([image.shape[1] / shape[1], image.shape[0] / shape[0]], 2)
    # The expected box is thicker, so that both are seen where they coincide.
    for box, colour, line in ((expected, (23, 166, 115), 5), (found, (240, 140, 26), 2)):
        left, top, width, height = (np.array(box) * scale).round().astype(int).tolist()
        cv2.rectangle(shown, (left, top), (left + width, top + height), colour, line)
    return shown


def grounding_image(path: Path, phrase: str, found: Grounding, file: Path) -> None:
    """Writes a PNG of the path, the path under the phrase's map and box, and under the map of each word."""
    image = open_image(path, obey_exif=True, shrink=False)
    shown = [("", None), (f"{phrase} ({found.probability:.0%})", found.map), *found.words]
    figure = Figure(figsize=(2.4 * len(shown), 2.8), layout="constrained")
    for place, (title, map_) in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), place + 1)
        axes.imshow(image)
        axes.set_title(title, fontsize=9, parse_math=False)  # a dollar sign is one
        axes.set_axis_off()
        if map_ is not None:
            axes.imshow(map_, cmap="jet", alpha=0.5, vmin=0, vmax=1)  # one scale: nothing there, nothing hot
        if place == 1:
            left, top, width, height = found.box
            axes.add_patch(Rectangle((left, top), width, height, fill=False, edgecolor="white", linewidth=2))
    with whole_file(file) as temporary:
        figure.savefig(temporary, format="png", dpi=110)
