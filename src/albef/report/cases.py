"""A report's sections on single records: the model's answers, right and wrong, with and without the right image."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from albef.config import Config
from albef.data.images import BadImage
from albef.data.records import Record
from albef.data.rows import ENTAILMENT_LABELS
from albef.data.sources import Source
from albef.engine import Engine
from albef.evaluation.classes import judge_classes
from albef.evaluation.grounding import PUBLISHED, Grounded, grounded, phrase_maps
from albef.evaluation.judged import Judged, another, shown
from albef.evaluation.tables import confusion, measured
from albef.evaluation.vqa import Asking, judge_answers
from albef.model.maps import SCORES, enlarged, scaled
from albef.report import page
from albef.report.findings import pixels_of
from albef.report.plots import boxed, lit

Metrics = Mapping[str, float]

NUM_RIGHT, NUM_WRONG, NUM_GROUNDED = 8, 8, 6
_SHOWN_SIDE, _MAP_SIDE = 224, 160  # side of stored images and maps, in pixels
WORDS = {
    "accuracy": "right answers",
    "open_accuracy": "right answers, written freely",
    "consistency": "statements right for all their images",
    "pointing": "highest point of the map in the box",
    "map_box": "box from the map, IoU ≥ 0.5",
    "proposals": "best proposed box, IoU ≥ 0.5",
    "words": "map of a word stronger on its own thing than on others",
}
MAPS = {"itm": "ITM", "itc": "ITC", PUBLISHED: "ITM, as published"}


class Case(NamedTuple):
    """A record with the model's answers: with its image, blind, and (questions only) written freely."""

    record: Record
    seen: Judged
    blind: Judged | None
    written: Judged | None


# The model's answers by record number: its choice, and (for questions with a list) what it writes freely.
Words = tuple[dict[int, Judged], dict[int, Judged]]
Judge = Callable[[Engine, Source, Config, bool], Words]


def classes(labels: Sequence[str]) -> Judge:
    """A judge that returns the label that the model chooses."""

    def judge(engine: Engine, source: Source, config: Config, shuffled: bool) -> Words:
        bad: dict[int, BadImage] = {}
        return {one.index: one for one in judge_classes(engine, source, labels, shuffled, bad)}, {}

    return judge


def answers(engine: Engine, source: Source, config: Config, shuffled: bool) -> Words:
    """The best answer of the list, and the one that the model writes freely."""
    bad: dict[int, BadImage] = {}
    wanted = config.evaluate
    asking = Asking(engine.answers, wanted.top_k, wanted.beams, config.task.count_first_token_twice)
    found = list(judge_answers(engine, source, asking, shuffled, bad))
    written = {ways["open"].index: ways["open"] for ways in found if "open" in ways}
    ranked = {ways["ranked"].index: ways["ranked"] for ways in found if "ranked" in ways}
    return (ranked, written) if ranked else (written, {})


def cases(engine: Engine, source: Source, config: Config, judge: Judge) -> list[Case]:
    """The model's answers to all records of the source with a readable image."""
    seen, written = judge(engine, source, config, False)
    controlled = another(source, 0, source.record(0, 0)) is not None
    blind = judge(engine, source, config, True)[0] if controlled else {}
    return [
        Case(source.record(index, 0), one, blind.get(index), written.get(index))
        for index, one in seen.items()
        if one.expected
    ]


def judged_sections(engine: Engine, source: Source, config: Config, judge: Judge) -> list[str]:
    """The first right and the first wrong answers, with their images."""
    found = cases(engine, source, config, judge)
    right = [case for case in found if case.seen.score >= 0.5]
    wrong = [case for case in found if case.seen.score < 0.5]
    sections = []
    for heading, ones, limit in (("Right answers", right, NUM_RIGHT), ("Wrong answers", wrong, NUM_WRONG)):
        cards = "".join(case_card(case, config) for case in ones[:limit])
        lead = (
            f"{len(ones)} of {len(found)} examples. Shown are the first {min(limit, len(ones))}, each with the "
            "probability that the model gives to its answer. “Blind” is its answer when it sees another image."
        )
        if not ones:
            lead = f"None of {len(found)} examples."
        sections.append(page.section(heading, lead, f'<div class="cards">{cards}</div>'))
    return sections


def case_card(case: Case, config: Config) -> str:
    """A record with its image or images and the answers."""
    record, seen = case.record, case.seen
    given = [record.image] if record.second_image is None else [record.image, record.second_image]
    text = record.captions[0]
    sides = ("left image", "right image") if len(given) > 1 else ("image",)
    images = ""
    for side, one in zip(sides, given, strict=True):
        with contextlib.suppress(BadImage):  # a system that sees regions needs no images
            pixels = pixels_of(one, config.data.obey_exif, config)
            images += page.img(pixels, f"{side} of “{text}”", _SHOWN_SIDE)
    kind = "right" if seen.score >= 0.5 else "given"
    lines = [f'<li class="{kind}">{page.chance(seen.probability, seen.answered)}</li>']
    if seen.score < 1:
        lines.append(f"<li>{page.text('expected: ' + seen.expected)}</li>")
    for name, said in (("written freely", case.written), ("blind", case.blind)):
        if said is not None:
            lines.append(f'<li class="soft">{page.chance(said.probability, f"{name}: {said.answered}")}</li>')
    body = f'<p class="caption">{page.text(text)}</p><ol class="choices">{"".join(lines)}</ol>'
    return f'<div class="card side">{images}<div>{body}</div></div>'


def grounded_sections(engine: Engine, source: Source, config: Config) -> list[str]:
    """Phrases with the maps of ITM and ITC on their images, the box found and the expected one."""
    found: dict[bool, list[GroundedCase]] = {True: [], False: []}
    for case in groundings(engine, source, config):
        of_kind = found[case.boxes["itc"].right]
        if len(of_kind) < NUM_GROUNDED:
            of_kind.append(case)
    brightest = max((case.probability for cases in found.values() for case in cases), default=1.0) or 1.0
    sections = []
    for heading, chosen in (("Found", found[True]), ("Missed", found[False])):
        lead = (
            f"The first {len(chosen)} phrases whose box by ITC agrees with the expected box "
            f"{'by an IoU of 0.5 or more' if heading == 'Found' else 'by less than an IoU of 0.5'}. Thick and green: "
            "the expected box. Thin and orange: the box found, which is the best proposal if there are proposals, "
            "else that of the map. Bright parts are where the score of the phrase comes from. All maps share one "
            f"scale: a map is as bright as the phrase is probable by ITM, and fully bright at {brightest:.0%}."
        )
        if not chosen:
            lead = "There is none."
        cards = "".join(grounded_card(case, brightest) for case in chosen)
        sections.append(page.section(heading, lead, f'<div class="cards">{cards}</div>'))
    return sections


class GroundedCase(NamedTuple):
    """A phrase with its image, its maps and boxes by ITM ("itm") and ITC ("itc"), and its probability."""

    phrase: str
    image: np.ndarray
    maps: dict[str, np.ndarray]
    boxes: dict[str, Grounded]
    probability: float


def groundings(engine: Engine, source: Source, config: Config) -> Iterator[GroundedCase]:
    """Each record with a box and a readable image."""
    for batch in shown(engine, source, False, {}, obey_exif=False):  # boxes are those of the stored image
        for record, pixels in zip(batch.records, batch.visual, strict=True):
            if record.box is None:
                continue
            image, phrase = pixels_of(record.image, False, config), record.captions[0]
            size = image.shape[1], image.shape[0]
            found = phrase_maps(engine, pixels[None], [phrase])
            maps: dict[str, np.ndarray] = {score: enlarged(found[score][0], size) for score in SCORES}
            boxes: dict[str, Grounded] = {score: grounded(record, map_) for score, map_ in maps.items()}
            yield GroundedCase(phrase, image, maps, boxes, float(engine.match([image], [phrase])[0]))


def grounded_card(case: GroundedCase, brightest: float) -> str:
    """A phrase with its image and both maps, each with the box found and the expected one."""
    whole = cv2.resize(case.image, (_MAP_SIDE, _MAP_SIDE), interpolation=cv2.INTER_CUBIC)
    figures = [page.figure(page.img(whole, f"image with “{case.phrase}”"), "image")]
    for score, title in (("itm", "ITM"), ("itc", "ITC")):
        light = scaled(case.maps[score], case.probability / brightest)
        one = case.boxes[score]
        drawn = lit(case.image, light, _MAP_SIDE)
        drawn = boxed(drawn, case.image.shape, one.true_box, one.chosen or one.box)
        result = "agrees with" if one.right else "misses"
        alt = (
            f"the same image, lit where {title} sees “{case.phrase}”; the box found {result} the expected one"
        )
        figures.append(page.figure(page.img(drawn, alt), title))
    return page.card(case.phrase, f'<div class="row three">{"".join(figures)}</div>')


def task_results(metrics: Metrics) -> str:
    """Every figure with its blind control, and (entailment) the answers by expected label."""
    names = measured(metrics)
    if not names:
        return page.section("What it scores", "This run was not evaluated: its metrics.json holds no scores.")
    rows: list[tuple[str, list[str], bool]] = []
    for name in names:
        split, metric = name.split("/", 1)
        cells = [value_cell(metrics, key) for key in (name, f"{split}/blind/{metric}")]
        begins = not rows or not rows[-1][0].startswith(f"{split.replace('_', ' ')} · ")
        rows.append((f"{split.replace('_', ' ')} · {words_of(metric)}", cells, begins))
    body = page.table("Figures", ["split · figure", "with its image", "blind"], rows)
    for split in dict.fromkeys(name.split("/")[0] for name in names):
        for name, title in ((split, split), (f"{split}/blind", f"{split}, blind")):
            if f"{name}/share_neutral_neutral" in metrics:
                caption = f"{title.replace('_', ' ')}: answers by expected label"
                body += confusion_matrix(caption, confusion(metrics, name))
    lead = (
        "All values are shares from 0 to 1, with 95 % intervals below. “Blind” is a control: every image is replaced "
        "by another one, so it shows how much comes from the text alone."
    )
    return page.section("What it scores", lead, body)


def confusion_matrix(caption: str, shares: np.ndarray) -> str:
    """A table with expected labels in rows and the model's answers in columns."""
    rows = [
        (label, [page.value_cell(float(share)) for share in row], False)
        for label, row in zip(ENTAILMENT_LABELS, shares, strict=True)
    ]
    return page.table(caption, ["expected", *ENTAILMENT_LABELS], rows)


def task_bars(metrics: Metrics, split: str) -> str:
    """The figures of a split as bars, each with its blind control below."""
    lines = []
    for name in measured(metrics):
        own, metric = name.split("/", 1)
        for key, what in ((name, "with its image"), (f"{own}/blind/{metric}", "blind")):
            if own == split and key in metrics:
                low, high = metrics.get(f"{key}_low"), metrics.get(f"{key}_high")
                lines.append(page.bar(words_of(metric), what, metrics[key], low, high))
    if not lines:
        return ""
    caption = f"Results on split “{split.replace('_', ' ')}”. Thin line and brackets: 95 % interval"
    return page.table(caption, ["figure", "", "", "share"], lines, kind="bars")


def value_cell(metrics: Metrics, key: str) -> str:
    """A table cell with a figure and its interval."""
    return page.value_cell(metrics.get(key), metrics.get(f"{key}_low"), metrics.get(f"{key}_high"))


def words_of(metric: str) -> str:
    """A figure's name for readers."""
    score, _, rest = metric.partition("_")
    if rest in WORDS and score in MAPS:
        return f"{MAPS[score]}: {WORDS[rest]}"
    for name in ("open_accuracy", "accuracy", "consistency"):
        if metric.startswith(name):
            kind = metric.removeprefix(name).strip("_").replace("_", "/")
            return WORDS[name] + (f": {kind}" if kind else "")
    return metric.replace("_", " ")
