"""Builds the task that a configuration names."""

from __future__ import annotations

from collections.abc import Callable

from albef.config import Config, TaskName
from albef.tasks.base import Task
from albef.tasks.classes import NLVR, Entailment
from albef.tasks.pretrain import Pretrain
from albef.tasks.retrieval import Retrieval
from albef.tasks.text_assignment import TextAssignment
from albef.tasks.vqa import VQA

TASKS: dict[TaskName, Callable[[Config], Task]] = {
    "pretrain": Pretrain,
    "retrieval": Retrieval,
    "grounding": Retrieval,  # the same objectives, evaluated differently
    "vqa": VQA,
    "entailment": Entailment,
    "text_assignment": TextAssignment,
    "nlvr": NLVR,
}


def build_task(config: Config) -> Task:
    """A task with initial weights: a student to train, and a teacher that follows it."""
    task = TASKS[config.task.name](config)
    task.student.checkpoint(config.train.checkpointing)
    return task
