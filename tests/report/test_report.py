"""The report as a reader's browser gets it: whole, self-contained, and true to what the model says."""

import base64
import dataclasses
import io
import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from albef.config import SIZES, Config, DataConfig, EvaluateConfig, ModelConfig, TaskConfig
from albef.data.sources import open_source
from albef.data.text import Tokenizer
from albef.engine import Engine
from albef.evaluation.ranking import similarities
from albef.model.albef import ALBEF
from albef.progress import duration
from albef.report import write_report
from albef.report.findings import Pair, caption_maps, doubts, gallery_pairs, rank, training_pairs
from albef.report.page import source
from albef.report.pairs import ordinal
from albef.report.plots import INFORMATION, LOSSES, SHARES, curves, lit, smoothed
from albef.report.words import words_section

MODEL = dataclasses.replace(
    SIZES["tiny"],
    image_size=24,
    patch_size=8,
    image_width=16,
    image_depth=1,
    image_heads=2,
    image_mlp_width=16,
    text_width=16,
    text_depth=1,
    text_heads=2,
    text_mlp_width=16,
    feature_width=8,
    vocab_size=300,
)
CONFIG = Config(model=MODEL, evaluate=EvaluateConfig(count=30, top_k=8))
VOID = {"meta", "img", "br", "path", "use", "rect"}


def toy_model(
    config: ModelConfig = MODEL, heads: tuple[str, ...] = ("contrast", "itm", "mlm"), seed: int = 0
) -> ALBEF:
    torch.manual_seed(seed)
    return ALBEF(config, heads)


def toy_engine(captions: list[str], heads: tuple[str, ...] = ("contrast", "itm", "mlm")) -> Engine:
    return Engine(toy_model(heads=heads), Tokenizer.train(captions, MODEL.vocab_size), quiet=True)


def write_log(run, steps: int = 12) -> None:
    rng = np.random.default_rng(0)
    with (run / "log.jsonl").open("w") as file:
        for step in range(steps):
            line = {"step": step, "pairs": 100 * (step + 1), "seconds": step + 1.0, "itc": 5 - rng.random()}
            line |= {"mi_i2t": rng.random(), "mi_t2i": rng.random(), "disagreement": rng.random()}
            if step >= 5:
                line |= {"itm": 0.6, "mlm": 4.0, "mi_mlm": rng.random(), "itm_accuracy": 0.7}
            file.write(json.dumps(line) + "\n")


def write_metrics(run) -> dict[str, float]:
    rng = np.random.default_rng(1)
    metrics = {"train/seconds": 3700.0}
    for split in ("test", "unseen_vendor"):
        for score in ("itc", "itm", "sum"):
            for metric in ("t2i_r1", "t2i_r5", "i2t_r1", "foil_noun", "foil_relation"):
                value = float(rng.random())
                key = f"{split}/{score}/{metric}"
                metrics |= {key: value, f"{key}_low": 0.9 * value, f"{key}_high": value + 0.1 * (1 - value)}
    (run / "metrics.json").write_text(json.dumps(metrics))
    return metrics


class Page(HTMLParser):
    """What is on a page; fails where tags do not close in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[dict[str, str]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "figure":
            self.figures.append({"class": attributes.get("class") or "", "src": "", "alt": ""})
        if tag == "img" and "figure" in self.open:
            self.figures[-1] |= {"src": attributes["src"], "alt": attributes["alt"]}

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def assert_self_contained(page: Page) -> None:
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                assert value.startswith(("data:image/", "#")), (tag, name, value[:60])


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "toy & <run>"
    run.mkdir()
    write_log(run)
    metrics = write_metrics(run)
    gallery = gallery_pairs(CONFIG, "test")
    engine = toy_engine([pair.caption for pair in gallery])
    path = write_report(run, engine, toy_model(seed=1), CONFIG)
    return path, gallery, engine, metrics


def test_is_one_small_file_in_the_run_folder(report):
    path, *_ = report
    html = path.read_text("utf-8")
    assert path.name == "report.html"
    assert path.stat().st_size < 5e6
    assert "http" not in html
    assert "url(" not in html.replace("url(#", "")
    assert "@import" not in html
    assert_self_contained(Page(html))


def test_a_screen_reader_gets_the_same_report(report):
    path, *_ = report
    page = Page(path.read_text("utf-8"))
    assert ("html", {"lang": "en"}) in page.tags
    levels = [int(tag[1]) for tag, _ in page.tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(levels))
    assert all(attributes["alt"] for tag, attributes in page.tags if tag == "img")
    tables = [tag for tag, _ in page.tags].count("table")
    assert tables == 3  # R@1, recall, foils
    assert [tag for tag, _ in page.tags].count("caption") == tables
    assert all(attributes["scope"] in ("col", "row") for tag, attributes in page.tags if tag == "th")
    assert all(attributes["aria-label"] for _, attributes in page.tags if attributes.get("role") == "region")
    (chart,) = (attributes for tag, attributes in page.tags if tag == "svg")
    assert chart["role"] == "img"
    ids = {attributes.get("id"): tag for tag, attributes in page.tags}
    assert (ids[chart["aria-labelledby"]], ids[chart["aria-describedby"]]) == ("title", "desc")


def test_the_chart_is_described_in_words():
    log = [{"pairs": 64.0, "itc": 4.0, "mi_i2t": 0.5}, {"pairs": 128.0, "itc": 2.0, "mi_i2t": 0.5}]
    page = Page(curves(log, (LOSSES, INFORMATION, SHARES)))
    assert "Losses: image–text contrast (ITC) from 3.00 to 3.00." in page.text  # smoothed
    assert "Mutual information, lower bound (nats): image → text (ITC) from 0.50 to 0.50." in page.text
    assert "Shares of a batch:" not in page.text


def test_words_are_explained_where_they_are_said():
    said = words_section(["<style>blind</style><p>R@1 by ITC &amp; foils</p>", '<img alt="MLM">'])
    assert re.findall(r"<dt>(.*?):</dt>", said) == ["ITC", "R@k", "foil"]
    assert "itch" not in words_section(["itch, ions"])
    assert words_section(["nothing to explain"]) == ""


def test_framed_pictures_are_the_right_ones(report):
    path, gallery, engine, _ = report
    page = Page(path.read_text("utf-8"))
    framed = [figure for figure in page.figures if "right" in figure["class"]]
    assert [figure["alt"] for figure in framed] == [pair.caption for pair in gallery[:12]]
    assert [figure["src"] for figure in framed] == [source(pair.image) for pair in gallery[:12]]
    # A random model ranks badly, so some stand behind the five.
    found, _ = rank(engine, gallery, CONFIG.evaluate.top_k, range(12), [])
    assert (
        sum("late" in figure["class"] for figure in framed)
        == sum(ranking.truth >= 5 for ranking in found)
        > 0
    )
    shown = page.figures
    for ranking in found:
        five, shown = shown[:5], shown[5 + (ranking.truth >= 5) :]
        assert [figure["src"] for figure in five] == [
            source(gallery[number].image) for number in ranking.order[:5]
        ]


def test_shows_the_figures_of_the_run(report):
    path, gallery, _, metrics = report
    text = Page(path.read_text("utf-8")).text
    for name, value in metrics.items():
        assert "/" in name
        assert name.startswith("train") or f"{value:.3f}" in text
    assert "1 h 1 min" in text
    assert "1,200" in text  # pairs
    assert "toy & <run>" in text
    assert f"chance{1 / 30:.3f}" in text  # of this gallery
    assert all(pair.caption in text for pair in gallery[:22])


def test_pictures_are_stored_as_they_are():
    image = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    stored = Image.open(io.BytesIO(base64.b64decode(source(image).partition(",")[2])))
    np.testing.assert_array_equal(np.asarray(stored), image)
    large = Image.open(
        io.BytesIO(base64.b64decode(source(np.zeros((300, 600, 3), np.uint8), 200).partition(",")[2]))
    )
    assert large.size == (200, 100)


def test_users_own_data_and_odd_captions(tmp_path):
    captions = [
        '<script>alert("a")</script> & co',
        "ein größeres Haus",
        "a red car",
        "the blue sea at night",
        "x",
    ]
    rng = np.random.default_rng(0)
    rows = []
    for number, caption in enumerate(captions):
        Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        rows.append({"image": f"{number}.png", "caption": caption})
    (tmp_path / "4.png").write_bytes(b"broken")
    rows += [{"image": "0.png", "caption": "the same picture again"}, {"image": "1.png", "caption": " . "}]
    (tmp_path / "pairs.json").write_text(json.dumps(rows))
    config = dataclasses.replace(CONFIG, data=DataConfig(source=str(tmp_path / "pairs.json")))
    run = tmp_path / "run"
    run.mkdir()
    (run / "metrics.json").write_text(json.dumps({"data/itc/t2i_r1": 0.25, "data/pictures": 4.0}))
    assert [pair.caption for pair in training_pairs(config, 200)] == captions[:4]
    html = write_report(run, toy_engine(captions), None, config).read_text("utf-8")
    page = Page(html)
    assert_self_contained(page)
    assert "<script" not in html
    assert all(caption in page.text for caption in captions[:4])
    framed = [figure["alt"] for figure in page.figures if figure["class"] == "right"]
    assert framed == captions[:4]
    assert "no log.jsonl" in page.text
    assert "no momentum teacher" in page.text
    assert "0.250" in page.text
    assert "chance0.2501.0001.000" in page.text.replace("\n", "")


def test_a_model_without_matching_gets_a_report(tmp_path):
    (tmp_path / "log.jsonl").write_text("")
    config = dataclasses.replace(CONFIG, task=TaskConfig(losses=("itc",)))
    html = write_report(
        tmp_path, toy_engine(["a fox"], heads=("contrast",)), toy_model(heads=("contrast",)), config
    ).read_text("utf-8")
    page = Page(html)
    assert "no maps of words" in page.text
    assert "by ITC." in page.text
    assert "was not evaluated" in page.text


def test_ranks_all_by_the_sum_and_the_rest_by_contrast():
    gallery = gallery_pairs(CONFIG, "test")
    engine = toy_engine([pair.caption for pair in gallery])
    images, texts = [pair.image for pair in gallery], [pair.caption for pair in gallery]
    similarity = similarities(engine, images, texts)
    by_text, by_image = rank(engine, gallery, len(gallery), [3], [7])
    odds = engine.match(images, [texts[3]] * len(images))
    expected = np.argsort(-(similarity[:, 3] / engine.temperature + np.log(odds / (1 - odds))))
    np.testing.assert_array_equal(by_text[0].order, expected)
    odds = engine.match([images[7]] * len(texts), texts)
    expected = np.argsort(-(similarity[7] / engine.temperature + np.log(odds / (1 - odds))))
    np.testing.assert_array_equal(by_image[0].order, expected)
    assert by_image[0].order[by_image[0].truth] == by_image[0].query == 7
    few, _ = rank(engine, gallery, 4, [3], [])
    order = np.argsort(-similarity[:, 3], kind="stable")
    np.testing.assert_array_equal(few[0].order[4:], order[4:])
    assert set(few[0].order[:4]) == set(order[:4])


def test_doubts_are_pairs_whose_likeliest_caption_means_something_else():
    image = np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)
    meanings = [("a fox", 1), ("a red fox", 2), ("one fox", 1), ("a tree", 3), ("two cars", 4)]
    pairs = [
        Pair(picture, text, meaning, "a fox")
        for picture, (text, meaning) in zip(image, meanings, strict=True)
    ]
    engine, teacher = toy_engine([text for text, _ in meanings]), toy_model(seed=3)
    judged = doubts(engine, teacher, pairs)
    assert (judged.total, judged.noisy) == (5, 4)
    judge = Engine(teacher, engine.tokenizer, quiet=True)
    texts = ["a fox", "a red fox", "a tree", "two cars"]  # of equal meanings the first
    logits = judge.encode_images(list(image)) @ judge.encode_texts(texts).T / engine.temperature
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = [n for n in range(5) if chances[n].argmax() != [0, 1, 0, 2, 3][n]]
    assert wrong
    assert {id(doubt.pair) for doubt in judged.found} == {id(pairs[n]) for n in wrong}
    for doubt in judged.found:
        row = next(n for n, pair in enumerate(pairs) if pair is doubt.pair)
        assert [text for text, _ in doubt.choices] == [texts[n] for n in np.argsort(-chances[row])[:3]]
        np.testing.assert_allclose([c for _, c in doubt.choices], np.sort(chances[row])[::-1][:3], rtol=1e-4)
    margins = [doubt.choices[0][1] - doubt.chance_given for doubt in judged.found]
    assert margins == sorted(margins, reverse=True)


def test_maps_are_of_words_that_can_be_seen_on_one_scale():
    engine = toy_engine(["a fox on the left of a car"])
    image = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    assert caption_maps(engine, Pair(image, "жук", 0)) == []  # of which the vocabulary knows no letter
    maps = caption_maps(engine, Pair(image, "A fox on the left of a car!", 0))
    assert [found.word for found in maps] == ["fox", "left", "car"]
    probability = engine.match([image], ["A fox on the left of a car!"])[0]
    assert all(found.light.shape == (24, 24) for found in maps)
    assert 0 < max(found.light.max() for found in maps) <= probability * 1.001


def test_curves_need_no_key_and_no_second_line():
    line = {"pairs": 64.0, "itc": 4.0}
    assert curves([line], (LOSSES, SHARES)).startswith("<svg")
    assert "masked words" not in curves([line], (LOSSES,))
    assert "masked words" in curves([line, {"pairs": 128.0, "mlm": 3.0}], (LOSSES,))
    assert curves([line], (LOSSES,)) == curves([line], (LOSSES,))


def test_smoothing_keeps_length_and_constants():
    for length in (1, 2, 3, 50, 400):
        np.testing.assert_allclose(smoothed(np.full(length, 3.0)), 3.0)
        assert len(smoothed(np.arange(length))) == length
    assert smoothed(np.array([0.0, 3.0, 0.0]))[1] == 1


def test_lit_is_the_picture_where_attention_is_full_and_grey_where_none():
    image = np.zeros((8, 8, 3), np.uint8)
    image[..., 0] = 200
    attention = np.array([[1.0, 0.0], [1.0, 0.0]])
    shown = lit(image, attention, 8)
    np.testing.assert_array_equal(shown[:, 0], image[:, 0])
    assert len(set(shown[4, -1].tolist())) == 1


def test_words_for_numbers():
    assert [ordinal(n) for n in (0, 1, 2, 3, 10, 11, 12, 20, 110)] == (
        ["1st", "2nd", "3rd", "4th", "11th", "12th", "13th", "21st", "111th"]
    )
    assert [duration(s) for s in (9.6, 60, 362, 7260)] == ["10 s", "1 min 0 s", "6 min 2 s", "2 h 1 min"]


def test_training_pairs_are_those_that_the_run_begins_with() -> None:
    data = DataConfig(count=24, mix={"group": 1}, twin_share=1.0, twin_aspects=("count",), caption_noise=0.5)
    config = dataclasses.replace(CONFIG, data=data)
    source = open_source(data, "train", config.train.seed, config.model.image_size)
    for number, pair in enumerate(training_pairs(config, 9)):
        assert np.array_equal(pair.image, source.record(number, 0).image)
        assert (pair.caption,) == source.record(number, 0).captions
