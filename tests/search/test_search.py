"""Search: both stages equal what the engine says of each pair; the table and the contact sheet."""

import io
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from rich.console import Console

from albef.config import UserError
from albef.data.images import BadImage
from albef.engine import Engine, loaded
from albef.ranker import Hit
from albef.search.index import Index, build_index
from albef.search.search import TILE, contact_sheet, fitting, font, hits_table, search


@pytest.fixture
def index(engine: Engine, tmp_path: Path) -> Index:
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(9):
        image = Image.fromarray(rng.integers(0, 256, (16, 20, 3), dtype=np.uint8))
        image.save(tmp_path / "pictures" / f"{number}.png")
    return build_index(engine, [tmp_path / "pictures"], tmp_path / "idx")


@pytest.mark.parametrize("max_pairs", [1024, 2])
def test_a_text_finds_what_both_scores_say(
    engine: Engine, index: Index, max_pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loaded, "MAX_PAIRS", max_pairs)
    files = list(index.paths)
    hits = search(index, engine, "Two foxes!", k=9, rerank=9)
    chances = engine.match(files, ["Two foxes!"] * 9).astype(np.float64)
    itm = dict(zip(files, np.log(chances / (1 - chances)), strict=True))
    similarity = engine.encode_images(files) @ engine.encode_texts(["Two foxes!"])[0]
    itc = dict(zip(files, similarity, strict=True))
    assert sorted(hit.path for hit in hits) == files
    for hit in hits:
        assert hit.similarity == pytest.approx(itc[hit.path], abs=1e-5)
        assert hit.match == pytest.approx(itm[hit.path], abs=0.05)  # tokens are stored in half precision
        assert hit.score == pytest.approx(hit.similarity / engine.temperature + hit.match, abs=1e-4)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_only_the_most_similar_are_matched(engine: Engine, index: Index) -> None:
    similar = search(index, engine, "a fox", k=9, rerank=0)
    assert all(hit.match is None for hit in similar)
    assert all(hit.score == pytest.approx(hit.similarity / engine.temperature) for hit in similar)
    assert [hit.similarity for hit in similar] == sorted((hit.similarity for hit in similar), reverse=True)
    best = {hit.path for hit in similar[:4]}
    assert {hit.path for hit in search(index, engine, "a fox", k=4, rerank=4)} == best
    assert {hit.path for hit in search(index, engine, "a fox", k=4, rerank=1)} == best
    assert len(search(index, engine, "a fox", k=100)) == 9


def test_a_picture_finds_itself_first(engine: Engine, index: Index) -> None:
    hits = search(index, engine, index.paths[5], k=3)
    assert hits[0].path == index.paths[5]
    assert hits[0].similarity == pytest.approx(1, abs=1e-5)
    assert all(hit.match is None for hit in hits)
    assert len(hits) == 3


def test_a_model_without_matching_searches_by_contrast(engine: Engine, index: Index) -> None:
    engine.model.heads = ("contrast",)
    hits = search(replace(index, weights=engine.fingerprint), engine, "a fox", k=2)
    assert len(hits) == 2
    assert hits[0].match is None


def test_queries_that_cannot_be_answered(engine: Engine, index: Index, tmp_path: Path) -> None:
    for nothing in (" ", "?!", "...", '""', "(#)"):
        with pytest.raises(UserError, match="query is empty"):
            search(index, engine, nothing)
    with pytest.raises(UserError, match="means nothing to the model"):
        search(index, engine, "雪")
    with pytest.raises(BadImage, match="no such file"):
        search(index, engine, tmp_path / "absent.png")
    with pytest.raises(UserError, match="other weights"):
        search(replace(index, weights="another"), engine, "a fox")


def test_the_table_shows_every_hit(tmp_path: Path) -> None:
    console = Console(width=80, file=io.StringIO())
    hits = [Hit(0, 1.0, 0.5, 0.0, Path("/a/[b].png")), Hit(1, 0.25, 0.25, None, Path("/a/c.png"))]
    with console.capture() as shown:
        console.print(hits_table(hits))
    rows = [line.split() for line in shown.get().splitlines()]
    assert ["1", "1.00", "0.500", "50.0", "%", "/a/[b].png"] in rows
    assert ["2", "0.25", "0.250", "/a/c.png"] in rows


def test_the_table_shows_both_models_after_re_ranking() -> None:
    console = Console(width=80, file=io.StringIO())
    hits = [
        Hit(0, 1.0, 0.5, 0.0, Path("/a/b.png"), 0.125),
        Hit(1, -np.inf, np.nan, None, Path("/a/c.png"), 0.75),
    ]
    with console.capture() as shown:
        console.print(hits_table(hits))
    rows = [line.split() for line in shown.get().splitlines()]
    assert ["#", "score", "similarity", "match", "in", "index", "image"] in rows
    assert ["1", "1.00", "0.500", "50.0", "%", "0.125", "/a/b.png"] in rows
    assert ["2", "0.750", "/a/c.png"] in rows


def test_the_sheet_has_the_scores_that_order_the_hits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []
    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda self, xy, t, *more: (drawn.append(t), text(self, xy, t, *more))
    )
    path = tmp_path / "none.png"
    hits = [
        Hit(0, 1.25, 0.5, 0.0, path, 0.125),
        Hit(1, -np.inf, np.nan, None, path, 0.75),
        Hit(2, 7.5, 0.75, None, path),
    ]
    contact_sheet(hits, tmp_path / "sheet.png", "two foxes")
    assert drawn[1::2] == ["1.  1.25   match 50.0 %", "2.  cannot be read", "3.  7.50"]


def test_the_contact_sheet_shows_the_pictures_in_order(tmp_path: Path) -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250), (250, 250, 0), (0, 250, 250)]
    hits = []
    for number, colour in enumerate(colours):
        path = tmp_path / f"{number}{'é' * 60}.png"
        Image.new("RGB", (40, 20), colour).save(path)
        hits.append(Hit(number, 9.0, 0.5, 2.0, path))
    hits.insert(3, Hit(9, 2.0, 0.1, 1.0, tmp_path / "gone.png"))
    for query in ("a very long query " * 20, hits[0].path):
        contact_sheet(hits, tmp_path / "sheet.png", query)
        with Image.open(tmp_path / "sheet.png") as opened:
            sheet = np.asarray(opened.convert("RGB")).astype(int)
        places = {}
        for colour in colours:
            rows, columns = np.nonzero((abs(sheet - colour) < 6).all(-1))
            keep = rows >= np.median(rows) if isinstance(query, Path) and colour == colours[0] else rows >= 0
            places[colour] = (rows[keep].min() // TILE, columns[keep].min())
            assert np.ptp(columns[keep]) == TILE - 1
        assert sorted(colours, key=lambda colour: places[colour]) == colours
    contact_sheet([], tmp_path / "none.png", "nothing like it")
    assert (tmp_path / "none.png").stat().st_size > 0


def test_the_sheet_draws_the_letters_of_many_languages() -> None:
    large = font(40)
    boxes = [large.getmask(letter).getbbox() for letter in ("\uffff", "é", "ö", "ß", "ж", "Я", "λ", "ş", "ő")]
    shapes = [bytes(large.getmask(letter)) for letter in ("\uffff", "é", "ö", "ß", "ж", "Я", "λ", "ş", "ő")]
    assert all(boxes)
    assert len(set(shapes)) == len(shapes)  # none is the box of a letter that there isn't


def test_a_text_of_any_length_and_bytes_fits(tmp_path: Path) -> None:
    assert len(fitting("i" * 10**6, font(14), 700)) < 800
    odd = tmp_path / os.fsdecode(b"caf\xe9\n.png")
    contact_sheet([Hit(0, 0.5, 0.5, None, odd)], tmp_path / "sheet.png", odd)
    assert fitting(odd.name, font(14), 700) == r"caf\udce9 .png"
