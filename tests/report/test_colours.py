"""The colours of a report can be told from what is behind them (WCAG 2.2, level AA), on light and dark pages."""

import re
from pathlib import Path

import pytest

import albef.report
from albef.report import colours
from albef.report.colours import CELL, CURVES, DARK, EDGE, EXPECTED, FOUND, LIGHT, MARK, TRACK, Palette, rgb
from albef.report.page import STYLE

TEXT, GRAPHICS = 4.5, 3.0
RGB = tuple[float, float, float]


def luminance(colour: RGB) -> float:
    parts = [part / 255 for part in colour]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: RGB, other: RGB) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def mixed(colour: RGB, opacity: float, behind: RGB) -> RGB:
    red, green, blue = (opacity * c + (1 - opacity) * b for c, b in zip(colour, behind, strict=True))
    return red, green, blue


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast(rgb("#767676"), rgb("#ffffff")) == pytest.approx(4.54, abs=0.01)
    assert contrast(rgb("#17a673"), rgb("#fbfbf9")) < GRAPHICS + 0.2


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_text_is_readable(palette: Palette) -> None:
    for name in ("ink", "soft", "good", "doubt"):
        for behind in (palette.page, palette.card):
            assert contrast(rgb(getattr(palette, name)), rgb(behind)) >= TEXT, (name, behind)
    strongest = mixed(rgb(palette.blue), CELL, rgb(palette.page))
    assert contrast(rgb(palette.ink), strongest) >= TEXT


@pytest.mark.parametrize("palette", [LIGHT, DARK], ids=["light", "dark"])
def test_lines_and_bars_are_seen(palette: Palette) -> None:
    page, ink, blue = rgb(palette.page), rgb(palette.ink), rgb(palette.blue)
    for name in CURVES:
        assert contrast(rgb(getattr(palette, name)), page) >= GRAPHICS, name
    assert contrast(rgb(palette.good), rgb(palette.card)) >= GRAPHICS  # frames
    track = mixed(blue, TRACK, page)
    for behind in (track, page):
        assert contrast(blue, behind) >= GRAPHICS
    for behind in (track, blue):  # intervals lie on both
        assert contrast(ink, behind) >= GRAPHICS
    assert contrast(mixed(ink, MARK, page), page) >= GRAPHICS


@pytest.mark.parametrize("colour", [EXPECTED, FOUND])
def test_a_box_is_seen_on_any_image(colour: RGB) -> None:
    for grey in range(256):
        behind = (grey, grey, grey)
        assert max(contrast(colour, behind), contrast(EDGE, behind)) >= GRAPHICS


def test_no_other_place_names_a_colour() -> None:
    assert set(re.findall(r"#[0-9a-f]{3,8}\b", STYLE)) == {*LIGHT, *DARK}
    for file in Path(albef.report.__file__).parent.glob("*.py"):
        if file.name != Path(colours.__file__).name:
            named = set(re.findall(r"#[0-9a-f]{6}\b", file.read_text("utf-8")))
            assert all(name.startswith("#0102") for name in named), file.name  # these stand for variables
