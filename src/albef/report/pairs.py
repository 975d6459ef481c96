"""What a model for images and texts scores, finds in either direction, looks at, and doubts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from albef.config import Config, is_drawn
from albef.engine import Engine
from albef.evaluation.protocol import protocol
from albef.model.albef import ALBEF
from albef.report import page
from albef.report.figures import SCORES, Metrics, interval, splits, title
from albef.report.findings import (
    Pair,
    Ranking,
    WordMap,
    caption_maps,
    doubts,
    gallery_pairs,
    judged_source,
    rank,
    source_pairs,
    training_pairs,
)
from albef.report.plots import lit

RECALLS = {
    f"{way}_r{k}": f"{name} R@{k}"
    for way, name in (("t2i", "text→image"), ("i2t", "image→text"))
    for k in (1, 5, 10)
} | {"r_mean": "mean"}
FOILS = {f"foil_{kind}": kind for kind in ("noun", "count", "size", "background", "location", "relation")}
NUM_CAPTIONS, NUM_IMAGES, NUM_MAPPED, NUM_DOUBTS = 12, 10, 6, 5
TOP_IMAGES, TOP_CAPTIONS = 5, 3
MAPS = range(3, 6)  # maps that a caption may have to be shown
OWN_GALLERY = 200  # pairs of users' data that stand in for a test gallery
DOUBTED_PAIRS = 256  # training pairs that the teacher judges at once
_SHOWN_SIDE, _MAP_SIDE = 224, 96  # pixels that a picture and a map are stored with


def pair_sections(engine: Engine, teacher: ALBEF | None, config: Config, metrics: Metrics) -> list[str]:
    """Figures, and what is found in either direction, of a model for pictures and texts.

    Of users' data without a validation file, training pairs stand in for the test gallery.
    """
    embedded = is_drawn(config.data.source)
    if config.data.source == "pictograms":
        gallery = gallery_pairs(config, config.evaluate.splits[0])
    else:
        source = judged_source(config, OWN_GALLERY)
        gallery = source_pairs(source, config, OWN_GALLERY) if source else training_pairs(config, OWN_GALLERY)
    # No query is chosen: the first captions, then the next pictures, then captions with maps.
    captions = range(len(gallery))[:NUM_CAPTIONS]
    images = range(len(gallery))[NUM_CAPTIONS:][:NUM_IMAGES] or captions
    found, named = rank(engine, gallery, config.evaluate.top_k, captions, images)
    score = "the sum of ITC and ITM" if engine.can_match else "ITC"
    where = "the test gallery"
    if not embedded:
        where = (
            f"{len(gallery)} pictures of the {'validation' if config.data.validation else 'training'} data"
        )
    return [
        results(engine, metrics, config),
        found_images(gallery, found, score, where),
        found_captions(gallery, named, score),
        attention(engine, gallery),
        doubted(engine, teacher, config),
    ]


def results(engine: Engine, metrics: Metrics, config: Config) -> str:
    """Tables of recalls and of foil accuracies, with what chance would give."""
    found = [(split, score) for split in splits(metrics) for score in SCORES]
    found = [pair for pair in found if any(name.startswith("/".join(pair) + "/") for name in metrics)]
    if not found:
        return page.section("What it scores", "This run was not evaluated: its metrics.json holds no scores.")
    seen = protocol(engine.trained, config.data.validation or config.data.source)
    lead = (
        f"{seen.sentence} Shares of 1, with 95 % intervals where they were computed. “Blind” is the control: every "
        "picture is replaced by another one's, so it is about chance."
    )
    embedded = config.data.source == "pictograms"
    if embedded:
        lead += (
            f" Each split is a gallery of {config.evaluate.count} scenes drawn for testing; each caption is "
            "true of its own scene only. A foil is the caption with one thing changed, so that it is false: "
            "its accuracy says how often the true caption gets the higher score."
        )
    # Of users' data pictures may have several captions each, which makes chance better from image to text.
    count = config.evaluate.count if embedded else metrics.get(f"{found[0][0]}/pictures", 0)
    ways = [metric for metric in RECALLS if metric.startswith("t2i") or (embedded and metric != "r_mean")]
    chance = {metric: min(1.0, int(metric[5:]) / count) for metric in ways} if count else {}
    body = "<h3>Recall</h3>" + score_table(metrics, found, RECALLS, chance)
    if any(name.rpartition("/")[2] in FOILS for name in metrics):
        body += "<h3>Foils</h3>" + score_table(metrics, found, FOILS, dict.fromkeys(FOILS, 0.5))
    return page.section("What it scores", lead, body)


def score_table(
    metrics: Metrics, found: Sequence[tuple[str, str]], names: Mapping[str, str], chance: Mapping[str, float]
) -> str:
    """Rows of split and score, columns of metrics, and chance as the last row."""
    rows: list[tuple[str, list[str], bool]] = []
    for split, score in found:
        keys = [f"{split}/{score}/{metric}" for metric in names]
        if not any(key in metrics for key in keys):
            continue  # foils have no blind control
        cells = [page.value_cell(metrics.get(key), *interval(metrics, key)) for key in keys]
        begins = not rows or rows[-1][0].split(" · ")[0] != title(split)
        rows.append((f"{title(split)} · {SCORES[score]}", cells, begins))
    if chance:
        cells = [
            f'<td class="soft">{chance[name]:.3f}</td>' if name in chance else "<td></td>" for name in names
        ]
        rows.append(("chance", cells, True))
    return page.table(["", *names.values()], rows)


def found_images(pairs: Sequence[Pair], rankings: Sequence[Ranking], score: str, where: str) -> str:
    """Captions with the pictures that the model would show for them."""
    cards = []
    for number, order, truth in rankings:
        shown = [*order[:TOP_IMAGES].tolist(), *([number] if truth >= TOP_IMAGES else [])]
        figures = []
        for place, candidate in enumerate(shown):
            right, late = candidate == number, place == TOP_IMAGES
            label = "✓ " * right + ordinal(truth if late else place)
            image = page.img(pairs[candidate].image, pairs[candidate].caption, _SHOWN_SIDE)
            figures.append(page.figure(image, label, "right late" if late else "right" if right else ""))
        cards.append(page.card(pairs[number].caption, f'<div class="row">{"".join(figures)}</div>'))
    lead = (
        f"The first {len(cards)} captions of {where}, not chosen, each with the {TOP_IMAGES} pictures that "
        f"rank highest among all {len(pairs)} by {score}. The right one is framed; where it is not among "
        "them, it stands at the end with its rank, framed with dashes."
    )
    return page.section("From words to pictures", lead, f'<div class="cards">{"".join(cards)}</div>')


def found_captions(pairs: Sequence[Pair], rankings: Sequence[Ranking], score: str) -> str:
    """Pictures with the captions that the model would choose for them."""
    cards = []
    for number, order, truth in rankings:
        lines = []
        for candidate in order[:TOP_CAPTIONS].tolist():
            mark = (' class="right"', " ✓") if candidate == number else ("", "")
            lines.append(f"<li{mark[0]}>{page.text(pairs[candidate].caption)}{mark[1]}</li>")
        if truth >= TOP_CAPTIONS:
            lines.append(f'<li class="right late">{page.text(pairs[number].caption)} ({ordinal(truth)})</li>')
        image = page.img(pairs[number].image, pairs[number].caption, _SHOWN_SIDE)
        cards.append(f'<div class="card side">{image}<ol>{"".join(lines)}</ol></div>')
    lead = (
        f"{len(cards)} more pictures of the same gallery, with the {TOP_CAPTIONS} captions that rank highest "
        f"among all {len(pairs)} by {score}. The right one is green; where it is not among them, it stands "
        "at the end."
    )
    return page.section("From pictures to words", lead, f'<div class="cards">{"".join(cards)}</div>')


def attention(engine: Engine, gallery: Sequence[Pair]) -> str:
    """For the words of a few captions, where in the picture their share of the score comes from."""
    heading, grid = "Where the score of a word comes from", engine.config.grid
    if not engine.can_match:
        return page.section(heading, "This model has no maps of words: they need matching.")
    mapped: list[tuple[Pair, list[WordMap]]] = []
    for pair in gallery[NUM_CAPTIONS + NUM_IMAGES :] or gallery:
        maps = caption_maps(engine, pair)
        if len(maps) in MAPS:
            mapped.append((pair, maps))
        if len(mapped) == NUM_MAPPED:
            break
    brightest = max((float(one.light.max()) for _, maps in mapped for one in maps), default=1.0) or 1.0
    cards = []
    for pair, maps in mapped:
        images = [page.img(stretched(pair.image), pair.caption)]
        images += [page.img(lit(pair.image, one.light / brightest, _MAP_SIDE), one.word) for one in maps]
        labels = ["picture", *(one.word for one in maps)]
        figures = "".join(page.figure(image, label) for image, label in zip(images, labels, strict=True))
        cards.append(page.card(pair.caption, f'<div class="row">{figures}</div>'))
    lead = (
        "What a word adds to the similarity of picture and caption: the caption's score less that of the caption "
        "without the word, followed back into the picture. Lit is much and grey is little, on one scale for all: a "
        "caption's strongest place is as bright as the caption is probable, by matching. "
        f"The model sees {grid} × {grid} patches, and the maps are no finer. These are the next captions of the "
        "gallery that have three to five words to show, not chosen otherwise."
    )
    if not cards:
        lead = "No caption of the gallery has three to five words that a picture could show."
    return page.section(heading, lead, f'<div class="cards">{"".join(cards)}</div>')


def stretched(image: np.ndarray) -> np.ndarray:
    """The picture as a square, as the model takes it, in the size of the maps beside it."""
    return cv2.resize(image, (_MAP_SIDE, _MAP_SIDE), interpolation=cv2.INTER_CUBIC)


def doubted(engine: Engine, teacher: ALBEF | None, config: Config) -> str:
    """Training pairs whose likeliest pseudo-target is another caption."""
    heading = "Which captions the teacher doubts"
    if teacher is None:
        return page.section(
            heading, "There is no momentum teacher to ask: the run's checkpoints are not there."
        )
    pairs = training_pairs(config, DOUBTED_PAIRS)
    judged = doubts(engine, teacher, pairs)
    lead = (
        "Momentum distillation trains on the given caption and on the captions that the teacher would "
        f"choose (in this run with a weight of {config.task.alpha:g}). Here the teacher chooses among the "
        f"captions of {judged.total} training pairs; for {len(judged.found)} of them it prefers another "
        "caption than the given one."
    )
    if judged.noisy:
        noisy = sum(doubt.pair.noisy for doubt in judged.found)
        lead += f" Of all captions {judged.noisy} were made noisy on purpose, of the doubted ones {noisy}."
    lead += " These are the pairs for which it is surest, with the chances of its first three choices."
    cards = []
    for doubt in judged.found[:NUM_DOUBTS]:
        image = page.img(doubt.pair.image, doubt.pair.caption, _SHOWN_SIDE)
        given = page.chance(doubt.chance_given, f"given: {doubt.pair.caption}")
        choices = "".join(f"<li>{page.chance(chance, caption)}</li>" for caption, chance in doubt.choices)
        clean = f"before the noise: {doubt.pair.clean}" if doubt.pair.noisy else ""
        cards.append(
            f'<div class="card side">{image}<div><p class="given">{given}</p>'
            f'<ol class="choices">{choices}</ol><p class="soft">{page.text(clean)}</p></div></div>'
        )
    if not cards:
        lead = f"There is none among {judged.total} training pairs for which it would choose another caption."
    return page.section(heading, lead, f'<div class="cards">{"".join(cards)}</div>')


def ordinal(place: int) -> str:
    """1st, 2nd, … of places that count from 0."""
    number = place + 1
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
