"""The report of a run: what was trained, how it went, what the model finds, where it looks."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from albef.config import Config, TaskName, is_drawn
from albef.data.sources import Source
from albef.engine import Engine
from albef.evaluation.protocol import protocol
from albef.evaluation.tables import measured
from albef.model.albef import ALBEF
from albef.report import page
from albef.report.cases import grounded_sections, judged_sections, task_bars, task_results, words_of
from albef.report.findings import (
    Pair,
    Ranking,
    caption_maps,
    doubts,
    gallery_pairs,
    judged_source,
    rank,
    source_pairs,
    training_pairs,
)
from albef.report.plots import INFORMATION, LOSSES, SHARES, LogLine, curves, lit
from albef.writing import write_whole

Metrics = Mapping[str, float]

REPORT_FILE = "report.html"
TASKS: dict[TaskName, str] = {
    "pretrain": "pictures and texts",
    "retrieval": "retrieval",
    "vqa": "answering questions",
    "entailment": "entailment",
    "text_assignment": "text assignment",
    "nlvr": "statements about two pictures",
    "grounding": "grounding",
}
SCORES = {"itc": "ITC", "itm": "ITM", "sum": "ITC + ITM"}
RECALLS = {
    f"{way}_r{k}": f"{name} R@{k}"
    for way, name in (("t2i", "text→image"), ("i2t", "image→text"))
    for k in (1, 5, 10)
} | {"r_mean": "mean"}
FOILS = {f"foil_{kind}": kind for kind in ("noun", "count", "size", "background", "location", "relation")}
NUM_CAPTIONS, NUM_PICTURES, NUM_MAPPED, NUM_DOUBTS = 12, 10, 6, 5
TOP_PICTURES, TOP_CAPTIONS = 5, 3
MAPS = range(3, 6)  # maps that a caption may have to be shown
JUDGED = 120  # records that examples are taken from
OWN_GALLERY = 200  # pairs of users' data that stand in for a test gallery
DOUBTED_PAIRS = 256  # training pairs that the teacher judges at once
_SHOWN_SIDE, _MAP_SIDE = 224, 96  # pixels that a picture and a map are stored with


def write_report(run: Path, engine: Engine, teacher: ALBEF | None, config: Config) -> Path:
    """The path of `report.html` in the run folder: one file that needs no other and no network.

    Curves are read from the run's `log.jsonl`, figures from its `metrics.json`; everything else is asked of the model
    now. Parts that a run cannot have (no log, no teacher, no matching, no data to evaluate on) are left out with a
    sentence.
    """
    log, metrics = read_log(run / "log.jsonl"), read_metrics(run / "metrics.json")
    task = config.task.name
    body = [headline(engine, config, log, metrics, run), course(log)]
    if task in ("pretrain", "retrieval"):
        body += pair_sections(engine, teacher, config, metrics)
    elif task in TASK_SECTIONS:
        body.append(task_results(metrics))
        source = judged_source(config, JUDGED)
        if source is None:
            body.append(page.section("Examples", "There are none: the recipe names no data.validation."))
        else:
            body += TASK_SECTIONS[task](engine, source, config)
    body.append(
        f"<footer>Made by albef from the log, the metrics and the model of {page.text(run.name)}.</footer>"
    )
    path = run / REPORT_FILE
    write_whole(path, page.page(f"What {run.name} learned", body))
    return path


TASK_SECTIONS: dict[TaskName, Callable[[Engine, Source, Config], list[str]]] = {
    "vqa": judged_sections,
    "entailment": judged_sections,
    "nlvr": judged_sections,
    "grounding": grounded_sections,
}


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
    pictures = range(len(gallery))[NUM_CAPTIONS:][:NUM_PICTURES] or captions
    found, named = rank(engine, gallery, config.evaluate.top_k, captions, pictures)
    score = "the sum of ITC and ITM" if engine.can_match else "ITC"
    where = "the test gallery"
    if not embedded:
        where = (
            f"{len(gallery)} pictures of the {'validation' if config.data.validation else 'training'} data"
        )
    return [
        results(engine, metrics, config),
        found_pictures(gallery, found, score, where),
        found_captions(gallery, named, score),
        attention(engine, gallery),
        doubted(engine, teacher, config),
    ]


def read_log(path: Path) -> list[LogLine]:
    """The logged steps; none if there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line]


def read_metrics(path: Path) -> Metrics:
    """What the run was measured to reach; nothing if there is no such file."""
    stored = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    return {name: value for name, value in stored.items() if not isinstance(value, str)}


def headline(engine: Engine, config: Config, log: Sequence[LogLine], metrics: Metrics, run: Path) -> str:
    """What was trained on what, for how long, and the recall at 1 that came out."""
    data, grid = config.data, engine.config.grid
    pairs = log[-1]["pairs"] if log else config.train.batch_size * config.train.steps
    seconds = metrics.get("train/seconds", log[-1]["seconds"] if log else 0.0)
    figures = [(f"{pairs:,.0f}", "image–text pairs seen")]
    if seconds:
        figures = [(duration(seconds), "of training"), *figures]
        figures += [(f"{pairs / seconds:,.0f}", "pairs a second")]
    if is_drawn(data.source):
        figures += [(f"{data.num_nouns}", "nouns")]
    if data.source == "pictograms":
        figures += [(f"{data.caption_noise:.0%}", "of training captions noisy")]
    figures += [
        (f"{sum(parameter.numel() for parameter in engine.model.parameters()):,}", "parameters"),
        (f"{engine.config.image_size} px", f"a side, in {grid} × {grid} patches"),
        (precision(config, run), "precision of training"),
    ]
    what = f"An ALBEF “{engine.config.size}” model, trained for {TASKS[config.task.name]} on {Path(data.source).name}"
    bars = recall_bars(metrics) or "".join(task_bars(metrics, split) for split in splits(metrics)[:1])
    return (
        f'<h1>{page.text(what)}</h1>\n<p class="soft">{page.text(outcome(metrics, config))}</p>\n'
        f"{page.tiles(figures)}\n{bars}"
    )


def outcome(metrics: Metrics, config: Config) -> str:
    """The result in a sentence, as far as it was measured: by the sum of both scores where there is one."""
    if config.task.name not in ("pretrain", "retrieval"):
        return task_outcome(metrics)
    for split in splits(metrics):
        for score in ("sum", "itc"):
            value = metrics.get(f"{split}/{score}/t2i_r1")
            if value is None:
                continue
            if config.data.source != "pictograms":
                return f"Asked by a caption, it names the right picture first in {value:.0%} of cases."
            count = config.evaluate.count
            return (
                f"Asked by a caption for one of {count} pictures that it has never seen, it names the right "
                f"one first in {value:.0%} of cases (split {title(split)}, by {SCORES[score]}); by chance "
                f"that would be {1 / count:.1%}."
            )
    return "This run was not evaluated: no recalls are in its metrics.json."


def task_outcome(metrics: Metrics) -> str:
    """The first figure of a task, and what is left of it blind."""
    for name in measured(metrics):
        split, metric = name.split("/", 1)
        if name not in metrics:
            continue
        blind = metrics.get(f"{split}/blind/{metric}")
        control = f"; shown another one's picture instead, in {blind:.0%}" if blind is not None else ""
        return f"{words_of(metric).capitalize()} in {metrics[name]:.0%} of cases (split {title(split)}){control}."
    return "This run was not evaluated: no figures are in its metrics.json."


def recall_bars(metrics: Metrics) -> str:
    """Recall at 1 from text to image, as bars, per split and score."""
    lines = []
    for split in splits(metrics):
        for score, name in SCORES.items():
            key = f"{split}/{score}/t2i_r1"
            if key in metrics:
                lines.append(page.bar(title(split), name, metrics[key], *interval(metrics, key)))
    if not lines:
        return ""
    note = (
        "Recall at 1, text to image. The thin line is the 95 % interval. ITC compares one vector of the "
        "text with one of the image; ITM reads both together and re-ranks the candidates of ITC; the last "
        "adds the two."
    )
    heading = "<h3>The right picture first</h3>"
    return f'{heading}<p class="soft">{note}</p><div class="bars">{"".join(lines)}</div>'


def course(log: Sequence[LogLine]) -> str:
    """Losses and bounds on mutual information over training."""
    if not log:
        return page.section("How training went", "This run folder has no log.jsonl, so there are no curves.")
    fused = [line for line in log if "itm" in line or "mlm" in line]
    lead = "Faint: as logged; strong: smoothed."
    if fused and fused[0] is not log[0]:
        lead += (
            " At the dashed line the fusion encoder joined, with matching and masked words; until there the "
            "image and the text encoder were aligned by contrast alone."
        )
    if any("mi_i2t" in line for line in log):
        lead += (
            " In the middle, what the losses say in the paper's terms: each is a lower bound on mutual "
            "information. Those of contrast cannot exceed the logarithm of the number of candidates (the "
            "batch and the queue)."
        )
    panels = [
        panel for panel in (LOSSES, INFORMATION, SHARES) if any(set(panel.series) & set(line) for line in log)
    ]
    charts = curves(log, panels)
    return page.section("How training went", lead, f'<div class="wide chart">{charts}</div>')


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


def found_pictures(pairs: Sequence[Pair], rankings: Sequence[Ranking], score: str, where: str) -> str:
    """Captions with the pictures that the model would show for them."""
    cards = []
    for number, order, truth in rankings:
        shown = [*order[:TOP_PICTURES].tolist(), *([number] if truth >= TOP_PICTURES else [])]
        figures = []
        for place, candidate in enumerate(shown):
            right, late = candidate == number, place == TOP_PICTURES
            label = "✓ " * right + ordinal(truth if late else place)
            image = page.img(pairs[candidate].image, pairs[candidate].caption, _SHOWN_SIDE)
            figures.append(page.figure(image, label, "right late" if late else "right" if right else ""))
        cards.append(page.card(pairs[number].caption, f'<div class="row">{"".join(figures)}</div>'))
    lead = (
        f"The first {len(cards)} captions of {where}, not chosen, each with the {TOP_PICTURES} pictures that "
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
    """For the words of a few captions, where in the picture matching looks."""
    heading, grid = "Where it looks for a word", engine.config.grid
    if not engine.can_match or engine.config.fusion_depth < 2:
        return page.section(
            heading, "This model has no maps of words: they need matching and two fusion layers or more."
        )
    cards = []
    for pair in gallery[NUM_CAPTIONS + NUM_PICTURES :] or gallery:
        maps = caption_maps(engine, pair)
        if len(maps) not in MAPS:
            continue
        images = [page.img(stretched(pair.image), pair.caption)]
        images += [page.img(lit(pair.image, found.attention, _MAP_SIDE), found.word) for found in maps]
        labels = ["picture", *(found.word for found in maps)]
        figures = "".join(page.figure(image, label) for image, label in zip(images, labels, strict=True))
        cards.append(page.card(pair.caption, f'<div class="row">{figures}</div>'))
        if len(cards) == NUM_MAPPED:
            break
    lead = (
        "Grad-CAM of the matching score: the places that a word attends to in the fusion encoder, as far as "
        "they speak for a match. Lit is much and grey is little, measured against the word's strongest "
        f"place. The model sees {grid} × {grid} patches, and the maps are no finer. These are the next "
        "captions of the gallery that have three to five words to show, not chosen otherwise."
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


def splits(metrics: Metrics) -> list[str]:
    """The splits that the metrics are of, in their order."""
    found = (name.rsplit("/", 2)[0] for name in metrics if name.count("/") > 1)
    return list(dict.fromkeys(found)) or list(dict.fromkeys(name.split("/")[0] for name in measured(metrics)))


def interval(metrics: Metrics, key: str) -> tuple[float | None, float | None]:
    """The ends of a metric's interval, where it has one."""
    return metrics.get(f"{key}_low"), metrics.get(f"{key}_high")


def precision(config: Config, run: Path) -> str:
    """What the run computed in: as its newest checkpoint says, else as set."""
    states = sorted((run / "checkpoints").glob("step-*/state.json"))
    return str(json.loads(states[-1].read_text("utf-8"))["precision"]) if states else config.train.precision


def title(split: str) -> str:
    """A split's name for readers."""
    return split.replace("_", " ").replace("/", ", ")


def ordinal(place: int) -> str:
    """1st, 2nd, … of places that count from 0."""
    number = place + 1
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def duration(seconds: float) -> str:
    """A time in the two largest units that it needs."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
