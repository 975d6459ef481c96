"""The report of a run: what was trained, how training went, what the model finds, and where it looks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from albef.config import Config, TaskName
from albef.data.rows import ENTAILMENT_LABELS, NLVR_LABELS
from albef.data.sources import Source
from albef.engine import Engine
from albef.errors import Caution
from albef.model.verbs import VisionLanguageModel
from albef.report import page
from albef.report.cases import answers, classes, grounded_sections, judged_sections, task_results
from albef.report.figures import Metrics, read_log, read_metrics
from albef.report.findings import judged_source
from albef.report.headline import course, headline
from albef.report.pairs import pair_sections
from albef.report.words import words_section
from albef.writing import write_whole

REPORT_FILE = "report.html"
JUDGED = 120  # records that examples are chosen from


# Sections about a model, from its engine, its teacher (if there is one), the configuration and the figures.
Sections = Callable[[Engine, VisionLanguageModel | None, Config, Metrics], list[str]]


def examples(shown: Callable[[Engine, Source, Config], list[str]]) -> Sections:
    """The figures of a task, followed by the sections that `shown` makes of single records."""

    def sections(
        engine: Engine, teacher: VisionLanguageModel | None, config: Config, metrics: Metrics
    ) -> list[str]:
        source = judged_source(config, JUDGED)
        if source is None:
            none = page.section("Examples", "There are none, since the recipe has no data.validation.")
            return [task_results(metrics), none]
        return [task_results(metrics), *shown(engine, source, config)]

    return sections


class Told(NamedTuple):
    """What a task is called, and its sections (None: only headline and curves)."""

    words: str
    sections: Sections | None = None


TOLD: dict[TaskName, Told] = {
    "pretrain": Told("image–text pre-training", pair_sections),
    "retrieval": Told("retrieval", pair_sections),
    "vqa": Told("visual question answering", examples(partial(judged_sections, judge=answers))),
    "entailment": Told(
        "visual entailment", examples(partial(judged_sections, judge=classes(ENTAILMENT_LABELS)))
    ),
    "nlvr": Told(
        "statements about two images", examples(partial(judged_sections, judge=classes(NLVR_LABELS)))
    ),
    "grounding": Told("grounding", examples(grounded_sections)),
    "text_assignment": Told("text assignment"),
}


def write_report(run: Path, engine: Engine, teacher: VisionLanguageModel | None, config: Config) -> Path:
    """Writes `report.html` into the run folder and returns its path. The file needs no other file and no network.

    Curves come from the run's `log.jsonl`, figures from its `metrics.json`. The model computes everything else now. If a
    part is missing (no log, no teacher, no matching, no data to evaluate on), a sentence says so.
    """
    log, metrics = read_log(run / "log.jsonl"), read_metrics(run / "metrics.json")
    told = TOLD[config.task.name]
    body = [headline(engine, config, told.words, log, metrics, run), course(log)]
    if told.sections is not None:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", Caution
            )  # captions that are longer than a model reads, as in training
            body += told.sections(engine, teacher, config, metrics)
    body.append(
        f"<footer>Made by albef from the log, the metrics and the model of the run {page.text(run.name)}.</footer>"
    )
    body.insert(1, words_section(body))
    path = run / REPORT_FILE
    write_whole(path, page.page(f"Report of {run.name}", body))
    return path
