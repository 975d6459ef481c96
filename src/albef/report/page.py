"""The pieces of a self-contained HTML page: everything is inside the file, and plain text is escaped here."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

_LOSSLESS_SIDE = 96  # pixels; pictures up to here are stored as they are

STYLE = """
:root { color-scheme: light dark;
  --page: #fbfbf9; --card: #fff; --ink: #1d2330; --soft: #667085; --line: #e3e5ea;
  --good: #17a673; --bar: 59 130 246; --doubt: #d9730d; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171d; --card: #1c2129; --ink: #e8eaee; --soft: #98a2b3; --line: #303743;
  --good: #2fc78f; --bar: 96 150 250; --doubt: #f0a04b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 34px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -.01em; }
h2 { font-size: 22px; margin: 56px 0 4px; letter-spacing: -.01em; }
h3 { font-size: 15px; margin: 20px 0 8px; }
p { margin: 4px 0 16px; max-width: 78ch; }
p.soft, .soft { color: var(--soft); }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr));
  margin: 24px 0; }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 12px 16px; }
.tile b { display: block; font-size: 21px; font-weight: 650; line-height: 1.3; white-space: nowrap; }
.tile span { color: var(--soft); font-size: 13px; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: 6px 12px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  width: 12.5%; }
th { font-weight: 600; font-size: 14px; }
thead th { vertical-align: bottom; color: var(--soft); white-space: normal; }
th[scope=row] { text-align: left; width: 25%; padding-left: 0; }
tr.first th, tr.first td { border-top: 2px solid var(--line); }
td.value { background: rgb(var(--bar) / var(--strength)); }
td small { display: block; color: var(--soft); font-size: 11px; line-height: 1.2; }
.bars { display: grid; grid-template-columns: auto auto 1fr auto; gap: 6px 14px; align-items: center;
  margin: 20px 0; }
.bars .track { position: relative; height: 18px; background: rgb(var(--bar) / .1); border-radius: 5px; }
.bars .fill { position: absolute; inset: 0 auto 0 0; background: rgb(var(--bar) / .75); border-radius: 5px; }
.bars .range { position: absolute; top: 8px; height: 2px; background: var(--ink); opacity: .65; }
.bars .name { grid-column: 1; font-weight: 600; }
.bars .score { grid-column: 2; color: var(--soft); }
.chart svg { width: 100%; min-width: 760px; height: auto; display: block; }
.chart svg text { font-family: system-ui, sans-serif !important; }
.cards { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(500px, 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 14px 16px; }
.card .caption { font-weight: 600; margin: 0 0 10px; }
.side { display: flex; gap: 16px; align-items: flex-start; }
.side > :last-child { flex: 1; min-width: 0; }
.row { display: grid; grid-template-columns: repeat(6, 1fr); gap: 10px; }
.row.three { grid-template-columns: repeat(3, 1fr); }
figure { margin: 0; }
figure img, .side > img { display: block; width: 100%; aspect-ratio: 1; object-fit: contain;
  border-radius: 8px; }
.side > img { width: 112px; flex: none; }
figcaption { font-size: 12px; color: var(--soft); text-align: center; line-height: 1.3; margin-top: 5px;
  overflow-wrap: anywhere; }
figure.right img { outline: 3px solid var(--good); outline-offset: 1px; }
figure.late img { outline-style: dashed; }
figure.right figcaption, li.right { color: var(--good); font-weight: 600; }
ol { margin: 0; padding-left: 22px; }
li { margin: 0 0 5px; }
li.late { list-style: none; margin-left: -22px; padding-top: 5px; border-top: 1px dashed var(--line); }
.given, .choices li { padding-left: 52px; text-indent: -52px; }
.given { color: var(--doubt); }
.chance { display: inline-block; width: 52px; text-indent: 0; color: var(--soft);
  font-variant-numeric: tabular-nums; }
ol.choices { list-style: none; padding: 0; }
footer { margin-top: 64px; padding-top: 12px; border-top: 1px solid var(--line); color: var(--soft);
  font-size: 13px; }
@media (max-width: 640px) { .cards { grid-template-columns: 1fr; } main { padding: 24px 14px 60px; } }
"""


def page(title: str, body: Iterable[str]) -> str:
    """The whole document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def text(words: str) -> str:
    """Any text as HTML."""
    return html.escape(words)


def section(heading: str, lead: str, body: str = "") -> str:
    """A chapter: `lead` is plain text that says what there is to see."""
    return f"<section>\n<h2>{text(heading)}</h2>\n<p>{text(lead)}</p>\n{body}\n</section>"


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Key figures, each with what it is."""
    each = (
        f'<div class="tile"><b>{text(value)}</b><span>{text(what)}</span></div>' for value, what in figures
    )
    return f'<div class="tiles">{"".join(each)}</div>'


def source(image: np.ndarray, side: int = 0) -> str:
    """The picture (uint8 [H, W, 3]) as the address of an `<img>`, shrunk to `side` pixels if it is larger."""
    shown = Image.fromarray(image)
    if side:
        shown.thumbnail((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    shown.save(file, "WEBP", lossless=max(shown.size) <= _LOSSLESS_SIDE, quality=82)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def img(image: np.ndarray, alt: str, side: int = 0) -> str:
    """An `<img>` that carries its picture."""
    return f'<img src="{source(image, side)}" alt="{text(alt)}">'


def figure(image: str, caption: str, kind: str = "") -> str:
    """An `<img>` with a line below; `kind` is its class."""
    kind = f' class="{kind}"' if kind else ""
    return f"<figure{kind}>{image}<figcaption>{text(caption)}</figcaption></figure>"


def card(caption: str, body: str) -> str:
    """A box with a caption above."""
    return f'<div class="card"><p class="caption">{text(caption)}</p>{body}</div>'


def table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str], bool]]) -> str:
    """A table; a row is its name, its ready-made `<td>`s and whether it begins a group."""
    top = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    lines = (
        f'<tr{" class=first" if first else ""}><th scope="row">{text(name)}</th>{"".join(cells)}</tr>'
        for name, cells, first in rows
    )
    return (
        f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def value_cell(value: float | None, low: float | None = None, high: float | None = None) -> str:
    """A share as a cell, the stronger coloured the higher, with its interval below where there is one."""
    if value is None:
        return '<td class="soft">–</td>'
    interval = f"<small>{low:.3f}–{high:.3f}</small>" if low is not None and high is not None else ""
    return f'<td class="value" style="--strength:{0.45 * value**2:.3f}">{value:.3f}{interval}</td>'


def bar(name: str, score: str, value: float, low: float | None, high: float | None) -> str:
    """A line of a bar chart of shares: bar, interval as a thin line, number."""
    interval = ""
    if low is not None and high is not None:
        interval = f'<div class="range" style="left:{low:.1%};width:{high - low:.1%}"></div>'
    return (
        f'<div class="name">{text(name)}</div><div class="score">{text(score)}</div>'
        f'<div class="track"><div class="fill" style="width:{value:.1%}"></div>{interval}</div>'
        f"<div>{value:.3f}</div>"
    )


def chance(value: float, words: str) -> str:
    """A probability before what it is of."""
    return f'<span class="chance">{value:.0%}</span>{text(words)}'
