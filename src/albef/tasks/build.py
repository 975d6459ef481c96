"""The task that a configuration names."""

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
    "grounding": Retrieval,  # the same objectives; what is asked of the model is another question
    "vqa": VQA,
    "entailment": Entailment,
    "text_assignment": TextAssignment,
    "nlvr": NLVR,
}


def build_task(config: Config) -> Task:
    """A task with initial weights; its student is trained, its teacher follows."""
    task = TASKS[config.task.name](config)
    task.student.checkpoint(config.train.checkpointing)
    return task
