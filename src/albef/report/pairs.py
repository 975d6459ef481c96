"""A report's sections on a model for images and texts: scores, search results, maps, and doubts of the teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from albef.config import Config, is_drawn
from albef.engine import Engine
from albef.evaluation.protocol import protocol
from albef.model.verbs import VisionLanguageModel
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
MAPS = range(3, 6)  # captions with so many maps are shown
OWN_GALLERY = 200  # pairs of users' data used as gallery
DOUBTED_PAIRS = 256  # training pairs that the teacher judges at once
_SHOWN_SIDE, _MAP_SIDE = 224, 96  # side of stored images and maps, in pixels


def pair_sections(
    engine: Engine, teacher: VisionLanguageModel | None, config: Config, metrics: Metrics
) -> list[str]:
    """Figures of a model for images and texts, and what it finds in either direction.

    If users' data have no validation file, training pairs serve as gallery.
    """
    embedded = is_drawn(config.data.source)
    if config.data.source == "pictograms":
        gallery = gallery_pairs(config, config.evaluate.splits[0])
    else:
        source = judged_source(config, OWN_GALLERY)
        gallery = source_pairs(source, config, OWN_GALLERY) if source else training_pairs(config, OWN_GALLERY)
    if not (engine.can_contrast or engine.can_match):
        none = "This model has neither ITC nor ITM, so it ranks nothing."
        return [results(engine, metrics, config), page.section("Examples", none)]
    if not gallery:
        none = "There are no images to show: regions are known, but the images themselves cannot be read."
        return [results(engine, metrics, config), page.section("Examples", none)]
    # Queries are not chosen: the first captions, then the next images, then the next captions with maps.
    captions = range(len(gallery))[:NUM_CAPTIONS]
    images = range(len(gallery))[NUM_CAPTIONS:][:NUM_IMAGES] or captions
    found, named = rank(engine, gallery, config.evaluate.top_k, captions, images)
    score = "the sum of ITC and ITM" if engine.can_match else "ITC"
    if not engine.can_contrast:
        score = "ITM"
    where = "the test gallery"
    if not embedded:
        where = f"{len(gallery)} images of the {'validation' if config.data.validation else 'training'} data"
    return [
        results(engine, metrics, config),
        found_images(gallery, found, score, where),
        found_captions(gallery, named, score),
        attention(engine, gallery),
        doubted(engine, teacher, config),
    ]


def results(engine: Engine, metrics: Metrics, config: Config) -> str:
    """Tables of recall and of foil accuracy, each with chance level."""
    found = [(split, score) for split in splits(metrics) for score in SCORES]
    found = [pair for pair in found if any(name.startswith("/".join(pair) + "/") for name in metrics)]
    if not found:
        return page.section("What it scores", "This run was not evaluated: its metrics.json holds no scores.")
    seen = protocol(engine.trained, config.data.validation or config.data.source)
    lead = (
        f"{seen.sentence} All values are shares from 0 to 1, with 95 % intervals below. “Blind” is a control: every "
        "image is replaced by another one, so values should fall to chance."
    )
    embedded = config.data.source == "pictograms"
    if embedded:
        lead += (
            f" Each split is a gallery of {config.evaluate.num_ranked} new scenes. Each caption is true of its own "
            "scene only. A foil is a caption with one thing changed, so that it is false. Foil accuracy is how often "
            "the true caption scores higher."
        )
    # In users' data an image may have several captions, which raises chance from image to text.
    count = config.evaluate.num_ranked if embedded else metrics.get(f"{found[0][0]}/pictures", 0)
    ways = [metric for metric in RECALLS if metric.startswith("t2i") or (embedded and metric != "r_mean")]
    chance = {metric: min(1.0, int(metric[5:]) / count) for metric in ways} if count else {}
    body = score_table("Recall", metrics, found, RECALLS, chance)
    if any(name.rpartition("/")[2] in FOILS for name in metrics):
        foils = "Foil accuracy, by what was changed in the caption"
        body += score_table(foils, metrics, found, FOILS, dict.fromkeys(FOILS, 0.5))
    return page.section("What it scores", lead, body)


def score_table(
    caption: str,
    metrics: Metrics,
    found: Sequence[tuple[str, str]],
    names: Mapping[str, str],
    chance: Mapping[str, float],
) -> str:
    """A table with a row for each split and score, a column for each metric, and chance as the last row."""
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
    return page.table(caption, ["split · ranked by", *names.values()], rows)


def found_images(pairs: Sequence[Pair], rankings: Sequence[Ranking], score: str, where: str) -> str:
    """Captions with the images that the model finds for them."""
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
        f"The first {len(cards)} captions of {where}, not selected. Each has the {TOP_IMAGES} images that rank "
        f"highest among {len(pairs)}, by {score}. The right image has a green frame and a ✓. If it is not among the "
        f"{TOP_IMAGES}, it comes last, with its rank and a dashed frame."
    )
    return page.section("From text to images", lead, f'<div class="cards">{"".join(cards)}</div>')


def found_captions(pairs: Sequence[Pair], rankings: Sequence[Ranking], score: str) -> str:
    """Images with the captions that the model finds for them."""
    cards = []
    for number, order, truth in rankings:
        lines = []
        for candidate in order[:TOP_CAPTIONS].tolist():
            mark = (' class="right"', " ✓") if candidate == number else ("", "")
            lines.append(f"<li{mark[0]}>{page.text(pairs[candidate].caption)}{mark[1]}</li>")
        if truth >= TOP_CAPTIONS:
            lines.append(f'<li class="right late">{page.text(pairs[number].caption)} ✓ {ordinal(truth)}</li>')
        image = page.img(pairs[number].image, pairs[number].caption, _SHOWN_SIDE)
        cards.append(f'<div class="card side">{image}<ol>{"".join(lines)}</ol></div>')
    lead = (
        f"{len(cards)} more images of the same gallery, each with the {TOP_CAPTIONS} captions that rank highest among "
        f"{len(pairs)}, by {score}. The right caption is green and has a ✓. If it is not among the {TOP_CAPTIONS}, it "
        "comes last, with its rank."
    )
    return page.section("From images to text", lead, f'<div class="cards">{"".join(cards)}</div>')


def attention(engine: Engine, gallery: Sequence[Pair]) -> str:
    """Where in the image the words of some captions get their part of the score from."""
    heading = "Where the score of a word comes from"
    if not engine.has_maps:
        return page.section(heading, "This model has no maps of words: they need pixels and ITM.")
    patches = " × ".join(map(str, engine.model.places))
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
        images += [
            page.img(
                lit(pair.image, one.light / brightest, _MAP_SIDE), f"the same image, lit for “{one.word}”"
            )
            for one in maps
        ]
        labels = ["image", *(one.word for one in maps)]
        figures = "".join(page.figure(image, label) for image, label in zip(images, labels, strict=True))
        cards.append(page.card(pair.caption, f'<div class="row">{figures}</div>'))
    lead = (
        "Each map shows where a word adds to the score of its caption: the score with the word, minus the score "
        "without it, traced back to the image. Bright parts add much, grey parts add little. All maps share one "
        "scale: a caption's brightest part is as bright as the caption is probable by ITM. "
        f"The model sees {patches} patches, so maps cannot be finer. These are the next captions of the gallery "
        "with three to five words to show."
    )
    if not cards:
        lead = "There are no maps: no caption of the gallery has three to five words that an image can show."
    return page.section(heading, lead, f'<div class="cards">{"".join(cards)}</div>')


def stretched(image: np.ndarray) -> np.ndarray:
    """The image as a square, as the model sees it, in the size of the maps beside it."""
    return cv2.resize(image, (_MAP_SIDE, _MAP_SIDE), interpolation=cv2.INTER_CUBIC)


def doubted(engine: Engine, teacher: VisionLanguageModel | None, config: Config) -> str:
    """Training pairs for which the teacher prefers another caption."""
    heading = "Which captions the teacher doubts"
    if teacher is None:
        return page.section(
            heading, "There is no momentum teacher to ask, since the run's checkpoints are missing."
        )
    if not engine.can_contrast:
        return page.section(heading, "The teacher compares no features, so it cannot choose among captions.")
    pairs = training_pairs(config, DOUBTED_PAIRS)
    judged = doubts(engine, teacher, pairs)
    weight = config.task.alpha if "itc" in config.task.distill else 0
    lead = (
        "The model learns from the given captions and from the captions that the teacher would choose. In this run "
        f"the teacher's choice had a weight of {weight:g}. Here the teacher chooses among the captions of "
        f"{judged.total} training pairs. For {len(judged.found)} of them it prefers another caption than the given one."
    )
    if judged.noisy:
        noisy = sum(doubt.pair.noisy for doubt in judged.found)
        lead += f" {judged.noisy} captions were made noisy on purpose, and {noisy} of these are among the doubted."
    lead += " Shown are the pairs where it is surest, with the probabilities of its first three choices."
    cards = []
    for doubt in judged.found[:NUM_DOUBTS]:
        image = page.img(doubt.pair.image, doubt.pair.caption, _SHOWN_SIDE)
        given = page.chance(doubt.chance_given, f"given: {doubt.pair.caption}")
        choices = "".join(f"<li>{page.chance(chance, caption)}</li>" for caption, chance in doubt.choices)
        clean = f"caption before the noise: {doubt.pair.clean}" if doubt.pair.noisy else ""
        cards.append(
            f'<div class="card side">{image}<div><p class="given">{given}</p>'
            f'<ol class="choices">{choices}</ol><p class="soft">{page.text(clean)}</p></div></div>'
        )
    if not cards:
        lead = f"None: for all {judged.total} training pairs that were tried, the teacher prefers the given caption."
    return page.section(heading, lead, f'<div class="cards">{"".join(cards)}</div>')


def ordinal(place: int) -> str:
    """1st, 2nd, … for places that count from 0."""
    number = place + 1
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
