"""The parts of a self-contained HTML page. Everything is inside the file. All plain text is escaped here."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from albef.report import colours
from albef.report.colours import CELL

_LOSSLESS_SIDE = 96  # pixels; images up to this size are stored without loss

STYLE = (
    colours.css()
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 34px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -.01em; overflow-wrap: anywhere; }
h2 { font-size: 22px; margin: 56px 0 4px; letter-spacing: -.01em; }
p { margin: 4px 0 16px; max-width: 78ch; }
.soft { color: var(--soft); }
.tiles { display: grid; gap: 12px; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr));
  margin: 24px 0; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 12px 16px; }
.tile b { display: block; font-size: 21px; font-weight: 650; line-height: 1.3; white-space: nowrap; }
.tile span { color: var(--soft); font-size: 13px; }
.words { columns: 2 420px; column-gap: 40px; margin: 12px 0; font-size: 14px; }
.words div { break-inside: avoid; margin: 0 0 8px; }
.words dt { display: inline; font-weight: 650; }
.words dd { display: inline; margin: 0; }
.wide { overflow-x: auto; margin: 20px 0; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-size: 15px; font-weight: 650; padding: 0 0 6px; }
th, td { padding: 6px 12px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  width: 12.5%; }
th { font-weight: 600; font-size: 14px; }
thead th { vertical-align: bottom; color: var(--soft); white-space: normal; }
th[scope=row], thead th:first-child { text-align: left; width: 25%; padding-left: 0; }
tr.first th, tr.first td { border-top: 2px solid var(--line); }
td.value { background: rgb(var(--blue-parts) / var(--strength)); }
td small { display: block; font-size: 11px; line-height: 1.2; }
.bars th, .bars td { border: 0; padding: 3px 14px 3px 0; width: auto; text-align: left; }
.bars td.track { width: 60%; min-width: 120px; }
.track div { position: relative; height: 18px; background: rgb(var(--blue-parts) / var(--track));
  border-radius: 5px; }
.track i { position: absolute; inset: 0 auto 0 0; background: var(--blue); border-radius: 5px; }
.track u { position: absolute; top: 8px; height: 2px; background: var(--ink); }
.chart svg { width: 100%; min-width: 760px; height: auto; display: block; }
.chart svg text { font-family: system-ui, sans-serif !important; }
.cards { display: grid; gap: 16px; grid-template-columns: repeat(auto-fill, minmax(min(500px, 100%), 1fr)); }
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
@media (max-width: 640px) { main { padding: 24px 14px 60px; } }
"""
)
Cell = str  # a whole `<td>`
Row = tuple[str, Sequence[Cell], bool]  # its name, its cells, and whether it begins a group


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
    """A section. `lead` is plain text that says what there is to see."""
    return f"<section>\n<h2>{text(heading)}</h2>\n<p>{text(lead)}</p>\n{body}\n</section>"


def tiles(figures: Iterable[tuple[str, str]]) -> str:
    """Key figures, each with a label."""
    each = (
        f'<div class="tile"><b>{text(value)}</b><span>{text(what)}</span></div>' for value, what in figures
    )
    return f'<div class="tiles">{"".join(each)}</div>'


def source(image: np.ndarray, side: int = 0) -> str:
    """The image (uint8 [H, W, 3]) as a data URL, shrunk to `side` pixels if it is larger."""
    shown = Image.fromarray(image)
    if side:
        shown.thumbnail((side, side), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    shown.save(file, "WEBP", lossless=max(shown.size) <= _LOSSLESS_SIDE, quality=82)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")


def img(image: np.ndarray, alt: str, side: int = 0) -> str:
    """An `<img>` with its image inside. `alt` says what is on it."""
    return f'<img src="{source(image, side)}" alt="{text(alt)}">'


def figure(image: str, caption: str, kind: str = "") -> str:
    """An `<img>` with a line below. `kind` is its class."""
    kind = f' class="{kind}"' if kind else ""
    return f"<figure{kind}>{image}<figcaption>{text(caption)}</figcaption></figure>"


def card(caption: str, body: str) -> str:
    """A box with a caption above."""
    return f'<div class="card"><p class="caption">{text(caption)}</p>{body}</div>'


def words(meanings: Iterable[tuple[str, str]]) -> str:
    """A list of words with their meanings."""
    each = (f"<div><dt>{text(word)}:</dt> <dd>{text(meaning)}</dd></div>" for word, meaning in meanings)
    return f'<dl class="words">{"".join(each)}</dl>'


def table(caption: str, head: Sequence[str], rows: Iterable[Row], kind: str = "") -> str:
    """A table with its caption. `head` names the columns, that of the row names too."""
    top = "".join(f'<th scope="col">{text(name)}</th>' for name in head)
    lines = (
        f'<tr{" class=first" if first else ""}><th scope="row">{text(name)}</th>{"".join(cells)}</tr>'
        for name, cells, first in rows
    )
    kind = f' class="{kind}"' if kind else ""
    return wide(
        caption,
        f"<table{kind}><caption>{text(caption)}</caption><thead><tr>{top}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>",
    )


def wide(label: str, body: str, kind: str = "wide") -> str:
    """Something that may be wider than the screen. It scrolls by itself, by the keyboard too."""
    return f'<div class="{kind}" role="region" tabindex="0" aria-label="{text(label)}">{body}</div>'


def value_cell(value: float | None, low: float | None = None, high: float | None = None) -> Cell:
    """A share as a cell. A higher share has a stronger colour. Its interval, if there is one, stands below."""
    if value is None:
        return '<td class="soft">–</td>'
    interval = f"<small>{low:.3f}–{high:.3f}</small>" if low is not None and high is not None else ""
    return f'<td class="value" style="--strength:{CELL * value**2:.3f}">{value:.3f}{interval}</td>'


def bar(name: str, score: str, value: float, low: float | None, high: float | None) -> Row:
    """A row of a bar chart of shares: a bar with its interval as a thin line, and the same as numbers."""
    line = numbers = ""
    if low is not None and high is not None:
        line = f'<u style="left:{low:.1%};width:{high - low:.1%}"></u>'
        numbers = f" ({low:.3f}–{high:.3f})"
    fill = f'<div aria-hidden="true"><i style="width:{value:.1%}"></i>{line}</div>'
    cells = (
        f'<td class="soft">{text(score)}</td>',
        f'<td class="track">{fill}</td>',
        f"<td>{value:.3f}{numbers}</td>",
    )
    return name, cells, False


def chance(value: float, words: str) -> str:
    """A probability, and what it belongs to."""
    return f'<span class="chance">{value:.0%}</span>{text(words)}'
